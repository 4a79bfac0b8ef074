// Letters that some may read and others may open, in JavaScript: the same contract as in the other languages of this folder.

import { model } from "aegis-module";

export const { identity, describeModel, commands, routes } = model({
  name: "letter",
  fields: { text: { kind: "text" } },
  acl: [
    { subject: "role", name: "reader", allow: ["read", "list-all"] },
    { subject: "role", name: "editor", allow: ["create", "read", "list-all", "update"] },
    { subject: "claim", name: "team=post", allow: ["delete"] },
    { subject: "anyone", allow: ["read"] },
    { subject: "role", name: "former", deny: ["read", "list-all", "update", "delete", "command"] },
  ],
  commands: {
    decrypt: { allow: ["decrypt", "auditor"], run: (_, { data }) => ({ clear: data.text }) },
    who: {
      run: (_, letter, { principal }) => {
        const { subject, roles, claims } = principal;
        return { subject, roles, team: JSON.parse(claims).team ?? null };
      },
    },
  },
  routes: {
    "GET /{id}/seal": { allow: ["auditor"], run: ({ params }) => ({ body: `sealed ${params.id}` }) },
    "GET //post/hours": { public: true, run: () => ({ body: "nine to five" }) },
    "GET //post/desk": () => ({ body: "a desk" }),
  },
});
