// Elements. Texts become text nodes, so that what a worker printed is never markup.

const there = (one) => one !== null && one !== undefined && one !== false;

/** Return an element: `h("p", {class: "dim"}, "text", child)`. A property that begins with "on" is a listener. */
export function h(tag, properties, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (!there(value)) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  return fill(element, ...children);
}

/** Make `children` the content of an element; null, undefined and false are left out. */
export function fill(element, ...children) {
  element.replaceChildren(...children.flat(3).filter(there));
  return element;
}

/** Set the text of an element, but touch it only if it differs: a selection in it stays. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Ask a question in a dialog; resolve to whether it was confirmed. */
export function confirmed(question, detail, action, danger = false) {
  return new Promise((resolve) => {
    const dialog = h("dialog", {class: "ask", onclose: () => { resolve(dialog.returnValue === "yes"); dialog.remove(); }},
      h("form", {method: "dialog"},
        h("h2", {}, question),
        h("p", {}, detail),
        h("div", {class: "actions"},
          h("button", {value: "no", autofocus: true}, "Back"),
          h("button", {value: "yes", class: danger ? "danger" : "primary"}, action))));
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** Show an error above the content until the next one. */
export function complain(container, error) {
  container.querySelector(".complaint")?.remove();
  if (error) container.prepend(h("p", {class: "complaint", role: "alert"}, error.message ?? String(error)));
}
