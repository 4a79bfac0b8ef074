// Who may do what, as the contract says it.

import { camel, parts, shown, texts, word } from "./words.js";

const SUBJECTS = ["role", "claim", "anyone"];
const RIGHTS = ["create", "read", "list-all", "update", "delete", "command"];
const PARTS = ["subject", "name", "allow", "deny"];

const rights = (found, place) =>
  Object.fromEntries(texts(found, place).map((right) => [camel(word(right, RIGHTS, place)), true]));

function rule(found, number) {
  const place = `acl.${number}`;
  parts(found, PARTS, place);
  const subject = word(found.subject, SUBJECTS, `${place}.subject`);
  const isNamed = typeof found.name === "string" && found.name !== "";
  if (isNamed === (subject === "anyone")) {
    const expected = isNamed ? "none: it is about anyone" : `the name of the ${subject}`;
    throw new TypeError(`${place}.name: found ${shown(found.name)}, expected ${expected}`);
  }
  const { name = "", allow = [], deny = [] } = found;
  return { subject, name, allow: rights(allow, `${place}.allow`), deny: rights(deny, `${place}.deny`), fields: [] };
}

/** The rules of a model. */
export function aclOf(rules = []) {
  if (!Array.isArray(rules)) throw new TypeError(`acl: found ${shown(rules)}, expected a list of rules`);
  return rules.map(rule);
}

/** The roles that a command or a route names; nobody when it names none. */
export const allowOf = (roles = [], place) => texts(roles, `${place}.allow`);
