// Measurements of this module, on the host's /metrics.

import { add, observe } from "aegis:module/metrics@1.0.0";

const pairs = (labels) => Object.entries(labels).map(([name, value]) => [name, String(value)]);

/** Counters and histograms. */
export const metrics = {
  add: (name, value = 1, labels = {}) => add(name, value, pairs(labels)),
  observe: (name, value, labels = {}) => observe(name, value, pairs(labels)),
};
