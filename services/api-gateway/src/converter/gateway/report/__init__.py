"""The conversion report as a page for people: `page` lays it out, `plots` draws; page.html and page.css: its form."""
