/** Which view is shown: the part of the address behind the `#`, so that every view can be linked and reloaded. */

/**
 * @typedef {{name: string, id: string, query: URLSearchParams}} Place `#/jobs/<id>?<query>`
 */

/** @returns {Place} */
export function here() {
  const [path, search] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, id] = path.split("/");
  return { name: name || "jobs", id: id ? decoded(id) : "", query: new URLSearchParams(search ?? "") };
}

/** @param {string} text */
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // typed by hand; no job has such an id
  }
}

/**
 * @param {string} name
 * @param {string} [id]
 * @param {Record<string, string>} [query] empty values are left out
 * @returns {string} the address of a view
 */
export function address(name, id = "", query = {}) {
  const given = Object.entries(query).filter(([, value]) => value);
  const search = given.length ? `?${new URLSearchParams(given)}` : "";
  return `#/${name}${id ? `/${encodeURIComponent(id)}` : ""}${search}`;
}

/** @param {string} place */
export function go(place) {
  location.hash = place;
}

/**
 * Changes the address without a new entry in the history; the view goes on as it is.
 * @param {string} place
 */
export function rewrite(place) {
  history.replaceState(null, "", place);
}
