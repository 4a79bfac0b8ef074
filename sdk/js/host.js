// What the host tells every module.

import { enabled, write } from "aegis:module/log@1.0.0";
import { generation as currentGeneration, getJson } from "aegis:module/config@1.0.0";
import { cancelled, monotonicNs, now as epochMs, remainingMs } from "aegis:module/clock@1.0.0";
import { bytes, uuid } from "aegis:module/random@1.0.0";

import { parse } from "./json.js";
import { count } from "./words.js";

const line = (level) => (message, values = {}) =>
  write(level, String(message), Object.entries(values).map(([name, value]) => [name, String(value)]));

/** Lines in the host's log, and whether a level is wanted. */
export const log = {
  trace: line("trace"),
  debug: line("debug"),
  info: line("info"),
  warn: line("warn"),
  error: line("error"),
  isEnabled: (level) => enabled(level),
};

/** A setting of this module by JSON Pointer; `undefined` when it is not set. */
export const setting = (pointer) => parse(getJson(pointer));

/** Number of the generation that this module is part of. */
export const generation = () => Number(currentGeneration());

/** The time. */
export const now = () => new Date(Number(epochMs()));

/** Milliseconds of a clock that only grows, with fractions: for measuring how long something takes. */
export const elapsed = () => Number(monotonicNs()) / 1e6;

/** Milliseconds that this call may still take. */
export const timeLeft = () => remainingMs();

/** Whether the caller went away, so that the answer is not wanted any more. */
export const isCancelled = () => cancelled();

/** A new UUID. */
export const newId = () => uuid();

/** Bytes that nobody can guess, 65536 at most. */
export const randomBytes = (length) => Uint8Array.from(bytes(count(length, "randomBytes") ?? 0));
