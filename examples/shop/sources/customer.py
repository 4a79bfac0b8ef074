"""Customers of a shop: people who order."""

import re

from aegis_module import Field, Model, Refusal, documents, log, new_id

#: What becomes of an order in one of these is still to be seen.
OPEN = ["PENDING", "APPROVED", "SHIPPING"]
PHONE = re.compile(r"^\+?[0-9][0-9 ()./-]{4,38}$")

customer = Model(
    "customer",
    description="Somebody who orders.",
    fields={
        "customerId": Field("text", immutable=True),
        "firstName": Field("text", required=True, longest=100),
        "lastName": Field("text", required=True, longest=100),
        "email": Field("text", required=True, unique=True, pattern="^[^@ ]+@[^@ ]+$"),
        "phone": Field("text", longest=40),
        "shippingAddress": Field("text", required=True, longest=1000),
        "billingAddress": Field("text", required=True, longest=1000),
        "creditCardNumber": Field("text", required=True, pattern="^[0-9]{12,19}$"),
        "userId": Field("text", indexed=True),
    },
)


@customer.on_create
def create(input, context):
    """Bills go where parcels go unless the customer says otherwise."""
    made = {**input, "customerId": new_id()}
    if "shippingAddress" in made:
        made.setdefault("billingAddress", made["shippingAddress"])
    return made


@customer.validate
def validate(after, before, context):
    wrong = {}
    if not is_card_number(after["creditCardNumber"]):
        wrong["creditCardNumber"] = "is mistyped: its digits do not add up"
    if after.get("phone") and not PHONE.match(after["phone"]):
        wrong["phone"] = "is no telephone number"
    if wrong:
        raise Refusal("invalid", f"it has a wrong {' and '.join(wrong)}", wrong)


@customer.on_delete
def delete(current, context):
    """Whoever has an open order stays."""
    page = documents.search("order", {"customerId": current.id, "orderStatus": {"in": OPEN}}, limit=1)
    if page.items:
        raise Refusal("conflict", "a customer with open orders cannot be deleted")


@customer.command(description="Numbers and states of the customer's orders.")
def orders(arguments, current, context):
    page = documents.search("order", {"customerId": current.id})
    return [{name: order.data[name] for name in ("orderNo", "orderStatus", "orderTotal")} for order in page.items]


@customer.command(
    description="Computes for long.",
    cpu_bound=True,
    about_one=False,
    arguments={
        "type": "object",
        "required": ["n"],
        "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 30}},
    },
)
def fibonacci(arguments, current, context):
    result = number(arguments["n"])
    log.info("computed", n=arguments["n"], result=result)
    return {"fibonacci": arguments["n"], "result": result}


def number(n):
    return n if n < 2 else number(n - 1) + number(n - 2)


def is_card_number(text):
    """The check of ISO/IEC 7812: every second digit from the right counts twice."""
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in text[-2::-2])
    return (sum(map(int, text[-1::-2])) + sum(doubled)) % 10 == 0
