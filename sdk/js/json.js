// JSON texts, as the contract carries them.

/** The value of a JSON text; `undefined` when there is none. */
export const parse = (text) => (text === undefined || text === null ? undefined : JSON.parse(text));

/** The JSON text of a value; `undefined` when there is none. */
export const json = (value) => (value === undefined ? undefined : JSON.stringify(value));
