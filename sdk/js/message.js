// Messages of HTTP, in both directions: header fields and bodies.

import { toBytes, toJson, toText } from "./text.js";

/** Header fields from names to values; a value may be a list of several. */
export const toHeaders = (fields = {}) =>
  Object.entries(fields).flatMap(([name, values]) =>
    [values].flat().map((value) => ({ name, value: toBytes(String(value)) })),
  );

/** Header fields by lower-case name; of several with one name, the values with commas in between. */
export function fromHeaders(headers) {
  // Without a prototype: clients choose the names.
  const fields = Object.create(null);
  for (const { name, value } of headers) {
    const [key, text] = [name.toLowerCase(), String.fromCharCode(...value)];
    fields[key] = key in fields ? `${fields[key]}, ${text}` : text;
  }
  return fields;
}

/** A body with the type that it has unless somebody says otherwise: bytes, a text, or a value that becomes JSON. */
function toBody(body) {
  if (body === undefined || body === null) return [new Uint8Array(), undefined];
  if (body instanceof Uint8Array) return [body, "application/octet-stream"];
  if (typeof body === "string") return [toBytes(body), "text/plain; charset=utf-8"];
  return [toBytes(JSON.stringify(body)), "application/json"];
}

/** Header fields and body of a message that is sent. */
export function toMessage({ headers = {}, body: content }) {
  const [body, type] = toBody(content);
  const said = Object.keys(headers).some((name) => name.toLowerCase() === "content-type");
  const fields = type === undefined || said ? headers : { ...headers, "content-type": type };
  return { headers: toHeaders(fields), body };
}

/** Header fields and body of a message that came. */
export function fromMessage(message) {
  const body = Uint8Array.from(message.body);
  return { headers: fromHeaders(message.headers), body, text: () => toText(body), json: () => toJson(body) };
}
