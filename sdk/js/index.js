// Modules for Ægis in JavaScript. What of it a module uses becomes an import of its component.

export { documents } from "./documents.js";
export {
  elapsed,
  generation,
  isCancelled,
  log,
  newId,
  now,
  randomBytes,
  setting,
  timeLeft,
} from "./host.js";
export { http } from "./http.js";
export { metrics } from "./metrics.js";
export { model } from "./model.js";
export { Refusal, refuse } from "./refusal.js";
export { secrets } from "./secrets.js";
