// Makes one tree like another and leaves equal nodes alone, so that focus, selection and scroll
// positions stay. Elements that scripts draw into (data-own) and the state of <details> stay too.

export function morph(old, fresh) {
  if (!alike(old, fresh)) return old.replaceWith(fresh);
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  if ("own" in old.dataset || "busy" in old.dataset) return;
  attributes(old, fresh);
  children(old, fresh);
}

const alike = (a, b) => a.nodeName === b.nodeName && (a.id ?? "") === (b.id ?? "");

function attributes(old, fresh) {
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && name !== "open") old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (name !== "open" && old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
}

function children(old, fresh) {
  let next = old.firstChild;
  for (const wanted of [...fresh.childNodes]) {
    const found = match(next, wanted);
    if (found === null) {
      old.insertBefore(wanted, next);
    } else {
      if (found !== next) old.insertBefore(found, next);
      next = found.nextSibling;
      morph(found, wanted);
    }
  }
  while (next !== null) {
    const gone = next;
    next = next.nextSibling;
    gone.remove();
  }
}

// The node itself if it is of the same kind, else a later one with the same id.
function match(next, wanted) {
  if (next !== null && alike(next, wanted)) return next;
  if (!wanted.id) return null;
  for (let node = next; node !== null; node = node.nextSibling) {
    if (alike(node, wanted)) return node;
  }
  return null;
}
