/**
 * Builds elements. Whatever comes from outside becomes text or the value of an attribute, never markup.
 *
 * @typedef {Node | string | number | null | undefined | false} Child
 * @typedef {Record<string, unknown>} Attributes `on` holds listeners by event; true writes a bare attribute;
 *   null, undefined and false leave it out.
 */

const SVG = "http://www.w3.org/2000/svg";

/** The elements that have listeners. @type {WeakSet<Node>} */
const listening = new WeakSet();

/**
 * An HTML element.
 * @param {string} tag
 * @param {Attributes} [attributes]
 * @param {...(Child | Child[])} children
 * @returns {any} the element; its own type is the caller's knowledge
 */
export function h(tag, attributes = {}, ...children) {
  return finished(document.createElement(tag), attributes, children);
}

/**
 * An SVG element.
 * @param {string} tag
 * @param {Attributes} [attributes]
 * @param {...(Child | Child[])} children
 * @returns {any}
 */
export function svg(tag, attributes = {}, ...children) {
  return finished(document.createElementNS(SVG, tag), attributes, children);
}

/**
 * @param {Element} element
 * @param {Attributes} attributes
 * @param {(Child | Child[])[]} children
 */
function finished(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") {
      const listeners = /** @type {Record<string, EventListener>} */ (value);
      for (const [type, listener] of Object.entries(listeners)) element.addEventListener(type, listener);
      listening.add(element);
    } else {
      element.setAttribute(name, value === true ? "" : String(value));
    }
  }
  element.append(...nodes(children.flat()));
  return element;
}

/**
 * @param {Child[]} children
 * @returns {(Node | string)[]}
 */
function nodes(children) {
  const there = children.filter((child) => child !== null && child !== undefined && child !== false);
  return there.map((child) => (child instanceof Node ? child : String(child)));
}

/**
 * Replaces what `host` holds.
 * @param {Element} host
 * @param {...(Child | Child[])} children
 */
export function fill(host, ...children) {
  host.replaceChildren(...nodes(children.flat()));
}

/**
 * Makes `host` hold `children` by changing the elements that it holds, where they are alike, rather than replacing them:
 * focus, selection, scroll, what somebody opened or ticked, and a click that has begun outlive the update.
 *
 * An element becomes the next one of the same tag and id. One with listeners stays only while it looks the same, and then
 * keeps its listeners: they must not depend on anything that cannot be seen in it.
 * @param {Element} host
 * @param {...(Child | Child[])} children
 */
export function update(host, ...children) {
  const wanted = nodes(children.flat());
  patch(
    host,
    wanted.map((node) => (typeof node === "string" ? new Text(node) : node)),
  );
}

/** Makes `wanted` the children of `host`. @param {Element} host @param {Node[]} wanted */
function patch(host, wanted) {
  let at = host.firstChild;
  const removeUntil = (/** @type {ChildNode | null} */ kept) => {
    while (at && at !== kept) {
      const next = at.nextSibling;
      at.remove();
      at = next;
    }
  };
  for (const node of wanted) {
    let kept = at;
    while (kept && !canBecome(kept, node)) kept = kept.nextSibling;
    if (!kept) {
      host.insertBefore(node, at);
      continue;
    }
    removeUntil(kept);
    become(kept, node);
    at = kept.nextSibling;
  }
  removeUntil(null);
}

/** @param {Node} old @param {Node} node */
function canBecome(old, node) {
  if (listening.has(old) || listening.has(node)) return old.isEqualNode(node);
  if (old instanceof Element && node instanceof Element) return old.tagName === node.tagName && old.id === node.id;
  return old.nodeType === node.nodeType;
}

/** Gives `old` the attributes, the text and the children of `node`. @param {Node} old @param {Node} node */
function become(old, node) {
  if (old.isEqualNode(node)) return;
  if (!(old instanceof Element && node instanceof Element)) {
    old.nodeValue = node.nodeValue;
    return;
  }
  for (const { name, value } of node.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  for (const { name } of [...old.attributes]) {
    if (!node.hasAttribute(name) && name !== "open") old.removeAttribute(name); // details that somebody opened stay open
  }
  patch(old, [...node.childNodes]);
}

/**
 * Tells a screen reader something that is seen elsewhere.
 * @param {string} sentence
 */
export function say(sentence) {
  const spoken = document.getElementById("spoken");
  if (spoken) spoken.textContent = sentence;
}
