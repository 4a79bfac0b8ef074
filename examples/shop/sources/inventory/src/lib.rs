//! The inventory of a shop: what there is to order. Nothing of an item changes once it is there, except how many there
//! are.

use aegis_module::{
    Code, Command, Context, Document, Entity, Field, Model, Refusal, Value, export, json, refuse,
};

/// What an item may have properties of.
const PROPERTIES: [&str; 5] = ["height", "length", "width", "weight", "color"];
const CATEGORIES: [&str; 3] = ["home", "auto", "business"];
const ASSET_TYPES: [&str; 2] = ["rotating-asset", "spare-part"];
/// The most pieces of one item.
const PIECES_MAX: u64 = 99_999;
/// The highest price of one piece.
const PRICE_MAX: f64 = 999.99;

export!(inventory);

fn inventory() -> Model {
    Model::new("inventory")
        .endpoint("inventory")
        .description("Something to order.")
        .field("name", Field::text().required().immutable().longest(200))
        .field("desc", Field::text().immutable().longest(1000))
        .field("category", Field::text().required().immutable().values(&CATEGORIES))
        .field("properties", Field::array().immutable().schema(json!({ "items": { "enum": PROPERTIES } })))
        .field("price", Field::decimal().required().immutable().min(0).max(PRICE_MAX))
        .field("sku", Field::text().unique().immutable())
        .field("purchaseOrder", Field::text().required().immutable().indexed())
        .field("vendor", Field::text().immutable())
        .field("assetType", Field::text().immutable().values(&ASSET_TYPES))
        .field("inStock", Field::integer().required().min(0).max(PIECES_MAX))
        .field("quantity", Field::integer().indexed().min(0).max(PIECES_MAX))
        .on_create(create)
        .command(pieces("pick", pick).description("Takes pieces out of the stock, as many as `pieces` says."))
        .command(pieces("restock", restock).description("Puts pieces into the stock."))
}

/// The price is what is left of it after the discount.
fn create(mut item: Document, _: &Context) -> Result<Document, Refusal> {
    let Some(discount) = item.as_object_mut().and_then(|members| members.remove("discount")) else {
        return Ok(item);
    };
    let Some(discount) = discount.as_f64().filter(|amount| *amount >= 0.0) else {
        return Err(refuse(Code::Invalid, "the discount is no amount").detail("discount", "must be a number"));
    };
    // If the price is not what it should be, the model's rules say so afterwards.
    if let Some(price) = item["price"].as_f64() {
        item["price"] = json!((cents(price) - cents(discount)) / 100.0);
    }
    Ok(item)
}

/// So that differences are exact.
fn cents(amount: f64) -> f64 {
    (amount * 100.0).round()
}

/// A command that gets a number of pieces and answers the stock that is left.
fn pieces(name: &str, change: fn(u64, u64) -> Result<u64, Refusal>) -> Command {
    let run = move |arguments: Value, mut item: Entity, _: &Context| {
        let pieces = arguments["pieces"].as_u64().unwrap_or(1);
        let in_stock = item.data["inStock"].as_u64().unwrap_or_default();
        item.data["inStock"] = change(in_stock, pieces)?.into();
        Ok(item.data)
    };
    let most = json!({ "type": "integer", "minimum": 1, "maximum": PIECES_MAX });
    Command::about_one(name, run)
        .arguments(&json!({ "type": "object", "properties": { "pieces": most } }))
        .saves()
}

fn pick(in_stock: u64, pieces: u64) -> Result<u64, Refusal> {
    in_stock.checked_sub(pieces).ok_or_else(|| {
        refuse(Code::Conflict, format!("found {in_stock} in stock, expected at least {pieces}"))
            .detail("inStock", "is too little")
    })
}

fn restock(in_stock: u64, pieces: u64) -> Result<u64, Refusal> {
    Ok(in_stock + pieces)
}
