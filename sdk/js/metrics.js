// Measurements of this module, on the host's /metrics.

import { add, observe } from "aegis:module/metrics@1.0.0";

import { number, text } from "./words.js";

const pairs = (labels) => Object.entries(labels).map(([name, value]) => [name, String(value)]);

/** Counters and histograms. */
export const metrics = {
  add: (name, value = 1, labels = {}) => add(text(name, "add: name"), number(value, "add"), pairs(labels)),
  observe: (name, value, labels = {}) =>
    observe(text(name, "observe: name"), number(value, "observe"), pairs(labels)),
};
