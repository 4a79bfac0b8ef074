// Texts and JSON as bytes.

import { Refusal } from "./refusal.js";

/** A text as UTF-8. By way of base64, as nothing else here makes bytes without a value for each of them. */
export const toBytes = (text) => Uint8Array.fromBase64(btoa(unescape(encodeURIComponent(text.toWellFormed()))));

/** Bytes that become characters at once: arguments of a function are bounded. */
const CHUNK_BYTES = 8192;

/** The text in UTF-8. */
export function toText(bytes) {
  let characters = "";
  for (let at = 0; at < bytes.length; at += CHUNK_BYTES) {
    characters += String.fromCharCode(...bytes.subarray(at, at + CHUNK_BYTES));
  }
  try {
    return decodeURIComponent(escape(characters));
  } catch {
    throw new Refusal("invalid", "found a body that is no text: it is no UTF-8");
  }
}

/** What a client or another system sent as JSON. */
export function toJson(bytes) {
  const text = toText(bytes);
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Refusal("invalid", `found a body that is no JSON: ${error.message}`);
  }
}
