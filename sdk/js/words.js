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

/** A number. */
export function number(found, place) {
  if (typeof found === "number" && Number.isFinite(found)) return found;
  throw new TypeError(`${place}: found ${shown(found)}, expected a number`);
}

/** A whole number that is not negative; nothing where nothing needs to be said. */
export function count(found, place) {
  if (found === undefined || found === null) return undefined;
  if (Number.isSafeInteger(found) && found >= 0) return found;
  throw new TypeError(`${place}: found ${shown(found)}, expected a whole number from 0 on`);
}

/** A function. */
export function code(found, place) {
  if (typeof found === "function") return found;
  throw new TypeError(`${place}: found ${shown(found)}, expected a function`);
}

/** An object of which every part has one of some names. */
export function parts(found, expected, place) {
  const isObject = typeof found === "object" && found !== null && !Array.isArray(found);
  if (!isObject) throw new TypeError(`${place}: found ${shown(found)}, expected an object of ${expected.join(", ")}`);
  Object.keys(found).forEach((part) => word(part, expected, place));
  return found;
}
