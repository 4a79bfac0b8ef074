// Things to do, in JavaScript: the same contract as in the other languages of this folder.

import { documents, model, refuse, setting } from "aegis-module";

/** What follows from the text. */
const counted = (todo) => {
  const words = typeof todo.text === "string" ? todo.text.split(/\s+/).filter(Boolean) : [];
  return { ...todo, words: words.length };
};

function validate(todo, before) {
  if (todo.text === "") throw refuse("invalid", "there is nothing to do", { text: "is empty" });
  if (before?.isComplete && todo.text !== before.text) throw refuse("conflict", "it is done already");
}

function update(current, changes) {
  const todo = { ...current.data };
  for (const [name, value] of Object.entries(changes)) {
    if (value === null) delete todo[name];
    else todo[name] = value;
  }
  return counted(todo);
}

function complete(_, todo) {
  if (todo.data.isComplete) throw refuse("conflict", "it is done already");
  return { ...todo.data, isComplete: true };
}

export const { identity, describeModel, hooks, commands, lifecycle } = model({
  name: "todo",
  endpoint: "todo",
  description: "Something to do",
  fields: {
    text: { kind: "text", rules: ["required"], schema: { maxLength: 20 } },
    isComplete: { kind: "boolean", default: false },
    priority: { kind: "integer", rules: ["indexed"] },
  },
  mixins: [{ name: "range", fields: ["priority"], min: 1, max: 5 }],
  hooks: {
    create: (input) => counted(typeof input.text === "string" ? { ...input, text: input.text.trim() } : input),
    validate,
    update,
    remove: (todo) => {
      if (!todo.data.isComplete) throw refuse("conflict", "it is to be done yet", { isComplete: "must be true" });
    },
  },
  commands: {
    complete: { description: "It is done.", saves: true, run: complete },
    shout: {
      arguments: { type: "object", properties: { mark: { type: "string", maxLength: 3 } } },
      run: ({ mark = setting("/mark") ?? "." }, todo) => todo.data.text.toUpperCase() + mark,
    },
    alike: {
      run: (_, todo) => {
        const { priority } = todo.data;
        const { items } = documents.search("todo", { filter: { priority }, sort: ["text"], fields: ["text"] });
        return items.filter(({ id, revision }) => id !== todo.id && revision > 0).map(({ data }) => data.text);
      },
    },
    stranger: { run: () => documents.find("customer", "c1") ?? null },
  },
});
