//! What stands for the systems that are read: a shop's two mirrors, its customers, a bank.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What somebody ordered.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) customer: u32,
    pub(crate) amount: f64,
    pub(crate) currency: String,
}

/// Names by number.
pub(crate) type Customers = BTreeMap<u32, String>;

/// Euros for one of a currency.
pub(crate) type Rates = BTreeMap<String, f64>;

/// What a source says today.
pub(crate) fn read(source: &str) -> Option<Value> {
    let order = |n: u32| {
        let currency = if n.is_multiple_of(4) { "USD" } else { "EUR" };
        json!({"customer": n % 3, "amount": 10 * n, "currency": currency})
    };
    match source {
        "orders-east" | "orders-west" => Some((1..=12).map(order).collect()),
        "customers" => Some(json!({"0": "Ada", "1": "Grace", "2": "Edsger"})),
        "rates" => Some(json!({"USD": 0.5})),
        _ => None,
    }
}
