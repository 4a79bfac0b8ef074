// Orders of a shop: what a document of the model `order` is, how it comes to be and what may become of it.

import { model, refuse, log, documents, newId } from "aegis-module";

/** Where an order may go from where it is. Nothing leads out of COMPLETE and CANCELED. */
const NEXT = {
  PENDING: ["APPROVED", "CANCELED"],
  APPROVED: ["SHIPPING", "COMPLETE", "CANCELED"],
  SHIPPING: ["COMPLETE", "CANCELED"],
  COMPLETE: [],
  CANCELED: [],
};
/** What a guest has to say, because there is no customer who has said it before. */
const GUEST_FIELDS = ["firstName", "lastName", "email", "creditCardNumber", "billingAddress", "shippingAddress"];
/** What does not change any more once the order is approved. */
const SETTLED = ["customerId", "orderItems", "creditCardNumber", "billingAddress", "shippingAddress"];
const TOTAL_MAX = 99_999.99;
/** From here on somebody has to sign for the parcel. */
const SIGNED_ABOVE = 999.99;

/** In cents, so that sums are exact. */
const cents = (amount) => Math.round(amount * 100);
const totalOf = (items) =>
  items.reduce((sum, item) => sum + cents(item.price) * (item.qty ?? 1), 0) / 100;

/** What follows from the items. If they are not what they should be, the model's rules say so afterwards. */
const derived = (order) => {
  const { orderItems } = order;
  if (!Array.isArray(orderItems) || !orderItems.every((item) => typeof item?.price === "number")) return order;
  const orderTotal = totalOf(orderItems);
  return { ...order, orderTotal, signatureRequired: Boolean(order.requireSignature) || orderTotal > SIGNED_ABOVE };
};

const logged = (order, desc, type) => ({
  ...order,
  log: [...(order.log ?? []), { desc: desc.slice(0, 140), type, time: Date.now() }].slice(-100),
});

/** The order with another status, if it may have that. */
function moveTo(order, status) {
  const from = order.orderStatus;
  if (!NEXT[from].includes(status)) {
    throw refuse("conflict", `an order that is ${from} cannot become ${status}`, { orderStatus: from });
  }
  return logged({ ...order, orderStatus: status }, `${from} to ${status}`, "stateChange");
}

function create(input) {
  const order = derived({ ...input, orderNo: newId(), orderStatus: "PENDING" });
  return logged(order, "created", "event");
}

function validate(order, before) {
  const missing = order.customerId ? [] : GUEST_FIELDS.filter((name) => !order[name]);
  if (order.orderStatus === "COMPLETE" && !order.proofOfDelivery) missing.push("proofOfDelivery");
  if (missing.length > 0) {
    const details = Object.fromEntries(missing.map((name) => [name, "is required here"]));
    throw refuse("invalid", `it lacks ${missing.join(", ")}`, details);
  }
  if (order.orderTotal > TOTAL_MAX) throw refuse("invalid", `an order comes to at most ${TOTAL_MAX}`);
  if (cents(order.orderTotal) !== cents(totalOf(order.orderItems))) {
    throw refuse("invalid", "orderTotal is not the sum of the items");
  }
  if (!before || before.orderStatus === "PENDING") return;
  const changed = SETTLED.filter((name) => JSON.stringify(order[name]) !== JSON.stringify(before[name]));
  if (changed.length > 0) throw refuse("conflict", `${changed.join(", ")} cannot change after the approval`);
}

function update(current, changes) {
  const { orderStatus, ...others } = changes;
  let order = { ...current.data };
  for (const [name, value] of Object.entries(others)) {
    if (value === null) delete order[name];
    else order[name] = value;
  }
  if ("orderItems" in others) order = derived(order);
  return orderStatus === undefined || orderStatus === order.orderStatus ? order : moveTo(order, orderStatus);
}

function remove(current) {
  if (NEXT[current.data.orderStatus].length > 0) {
    throw refuse("conflict", "an order must be canceled or complete before it is deleted");
  }
}

/** The order with what it lacks of its customer, approved. A guest who wants to be remembered becomes a customer. */
function checkout(order) {
  let { customerId } = order;
  const known = customerId && documents.find("customer", customerId);
  if (customerId && !known) throw refuse("invalid", "there is no such customer", { customerId });
  if (!customerId && order.saveShippingDetails) customerId = remembered(order).id;
  const missing = GUEST_FIELDS.filter((name) => known && order[name] === undefined);
  const taken = Object.fromEntries(missing.map((name) => [name, known.data[name]]));
  return moveTo({ ...order, ...taken, ...(customerId && { customerId }) }, "APPROVED");
}

/** The customer with the e-mail address of an order, made if there is none yet: a checkout may be carried out twice. */
function remembered(order) {
  const { items } = documents.search("customer", { filter: { email: order.email }, limit: 1 });
  return items[0] ?? documents.create("customer", Object.fromEntries(GUEST_FIELDS.map((name) => [name, order[name]])));
}

/** What is in the inventory of what was ordered. */
const itemsOf = (order) =>
  order.orderItems
    .map(({ itemId, qty }) => ({ item: documents.find("inventory", itemId), qty: qty ?? 1 }))
    .filter(({ item }) => item)
    .map(({ item, qty }) => ({ itemId: item.id, name: item.data.name, inStock: item.data.inStock, qty }));

const fibonacci = (n) => (n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2));

export const { identity, describeModel, hooks, commands, lifecycle } = model({
  name: "order",
  endpoint: "orders",
  version: "1.0.0",
  description: "What customers order.",
  fields: {
    orderItems: {
      kind: "array",
      rules: ["required"],
      schema: {
        minItems: 1,
        items: {
          type: "object",
          required: ["itemId", "price"],
          properties: {
            itemId: { type: "string", minLength: 1 },
            price: { type: "number", minimum: 0 },
            qty: { type: "integer", minimum: 1 },
          },
        },
      },
    },
    orderNo: { kind: "text", rules: ["immutable"] },
    orderStatus: { kind: "text", rules: ["indexed"], schema: { enum: Object.keys(NEXT) } },
    customerId: { kind: "text", rules: ["indexed"] },
    email: { kind: "text" },
    orderTotal: { kind: "decimal" },
  },
  mixins: [{ name: "pattern", fields: ["email"], pattern: "^[^@ ]+@[^@ ]+$" }],
  hooks: { create, validate, update, remove },
  commands: {
    approve: {
      description: "Approves a pending order.",
      saves: true,
      run: (_, order) => moveTo(required(order).data, "APPROVED"),
    },
    checkout: {
      description: "Approves a pending order with what is known of its customer.",
      saves: true,
      run: (_, order) => checkout(required(order).data),
    },
    cancel: {
      description: "Cancels an order that is not complete.",
      saves: true,
      run: (_, order) => moveTo(required(order).data, "CANCELED"),
    },
    customer: {
      description: "The customer of an order.",
      run: (_, order) => documents.find("customer", required(order).data.customerId ?? "")?.data ?? null,
    },
    items: {
      description: "What the inventory has of the ordered items.",
      run: (_, order) => itemsOf(required(order).data),
    },
    others: {
      description: "Numbers and totals of the other orders of the same customer.",
      run: (_, order) => {
        const { customerId, orderNo } = required(order).data;
        if (!customerId) return [];
        const { items } = documents.search("order", { filter: { customerId }, limit: 100 });
        return items
          .filter(({ data }) => data.orderNo !== orderNo)
          .map(({ data }) => ({ orderNo: data.orderNo, orderTotal: data.orderTotal }));
      },
    },
    fibonacci: {
      description: "Computes for long.",
      cpuBound: true,
      arguments: { type: "object", required: ["n"], properties: { n: { type: "integer", minimum: 0, maximum: 40 } } },
      run: ({ n }) => {
        const begun = Date.now();
        const result = fibonacci(n);
        log.info("computed", { n, result });
        return { fibonacci: n, result, time: Date.now() - begun };
      },
    },
  },
});

function required(order) {
  if (!order) throw refuse("invalid", "this command is about one order");
  return order;
}
