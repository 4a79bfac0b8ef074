// The words that an author may say. One that is misspelt would be as if it were not there: a rule that nobody keeps, a hook
// that nobody calls. So it is a mistake at once.

export const camel = (name) => name.replace(/-(.)/g, (_, letter) => letter.toUpperCase());
export const shown = (value) => JSON.stringify(value) ?? String(value);

/** One of some words. */
export function word(found, expected, place) {
  if (expected.includes(found)) return found;
  throw new TypeError(`${place}: found ${shown(found)}, expected one of ${expected.join(", ")}`);
}

/** A text. */
export function text(found, place) {
  if (typeof found === "string") return found;
  throw new TypeError(`${place}: found ${shown(found)}, expected a text`);
}

/** A list of texts. */
export function texts(found, place) {
  if (Array.isArray(found) && found.every((one) => typeof one === "string")) return found;
  throw new TypeError(`${place}: found ${shown(found)}, expected a list of texts`);
}

/** An object of which every part has one of some names. */
export function parts(found, expected, place) {
  const isObject = typeof found === "object" && found !== null && !Array.isArray(found);
  if (!isObject) throw new TypeError(`${place}: found ${shown(found)}, expected an object of ${expected.join(", ")}`);
  Object.keys(found).forEach((part) => word(part, expected, place));
  return found;
}
