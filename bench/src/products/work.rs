//! What is asked: keys in the order of the real order lines, and bodies that are the real products.

use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;

use serde_json::Value as Json;

use crate::data::lines;
use crate::{Plan, Result};

/// Orders that the keys are taken from: about ten lines each.
const ORDERS: usize = 40_000;
/// Order lines whose products are asked for where everything is cached.
const WARM: usize = 10_000;
/// One request in so many is a write where reads and writes are mixed.
const WRITES_ONE_IN: u64 = 20;

/// A product of the catalogue.
pub(super) struct Product {
    pub(super) id: String,
    /// Its JSON up to the value of `stock`, which is the last field.
    before_stock: String,
}

impl Product {
    /// Its JSON with a stock.
    pub(super) fn json(&self, stock: u64) -> String {
        format!("{}{stock}}}", self.before_stock)
    }
}

/// The catalogue, and which products were bought, one line after another.
pub(super) struct Goods {
    pub(super) products: Vec<Product>,
    pub(super) bought: Vec<usize>,
}

impl Goods {
    pub(super) fn read(plan: &Plan, records: &[Json]) -> Result<Self> {
        let mut places = HashMap::new();
        let mut products = Vec::new();
        for (n, record) in records.iter().enumerate() {
            let id = record["id"].as_str().unwrap_or_default().to_owned();
            // The key first, as all sides answer it.
            let mut fields = record.as_object().cloned().unwrap_or_default();
            fields.remove("id");
            let rest = Json::Object(fields).to_string();
            let rest = rest.trim_start_matches('{').trim_end_matches('}');
            let before_stock = format!("{{\"id\":\"{id}\",{rest},\"stock\":");
            places.insert(id.clone(), n);
            products.push(Product { id, before_stock });
        }
        let mut bought = Vec::new();
        for line in lines(&plan.data.join("orders.jsonl.gz"))?.take(ORDERS) {
            let order: Json = serde_json::from_str(&line?)?;
            let items = order["items"].as_array().map(Vec::as_slice).unwrap_or_default();
            // A few products were sold that the catalogue does not have.
            let ids = items.iter().filter_map(|item| item["product_id"].as_str());
            bought.extend(ids.filter_map(|id| places.get(id)));
        }
        Ok(Goods { products, bought })
    }

    pub(super) fn product(&self, n: usize) -> Result<&Product> {
        self.products.get(n).ok_or_else(|| "no such product".into())
    }

    fn line(&self, n: u64, of: usize) -> Result<&Product> {
        let line = usize::try_from(n)? % of.min(self.bought.len()).max(1);
        self.product(self.bought.get(line).copied().ok_or("no order lines")?)
    }

    /// The products of the first order lines, each once.
    fn warm(&self) -> Vec<usize> {
        let mut some: Vec<usize> = self.bought.iter().take(WARM).copied().collect();
        some.sort_unstable();
        some.dedup();
        some
    }
}

/// What a load does.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum What {
    /// Reads the products of the first order lines, which were read before.
    Warm,
    /// Reads what was bought, in its order.
    Bought,
    /// Reads each product of the catalogue once.
    Each,
    /// Reads what `Warm` needs, each once.
    Fill,
    /// Reads like `Bought`, and writes.
    Mixed,
    Put,
    /// A list of so many.
    List(usize),
}

/// What an answer must be.
#[derive(Clone, Copy)]
pub(super) enum Expected<'a> {
    /// The record with this key.
    Record(&'a str),
    /// A list of so many records.
    List(usize),
}

/// A connection among those of a load.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) number: usize,
    pub(super) connections: usize,
}

/// What a side is asked for, in its own paths.
#[derive(Clone)]
pub(super) struct Work {
    pub(super) goods: Arc<Goods>,
    fill: Arc<[usize]>,
    collection: &'static str,
    what: What,
}

impl Work {
    pub(super) fn new(goods: &Arc<Goods>, collection: &'static str, what: What) -> Self {
        let fill = if what == What::Fill { goods.warm() } else { Vec::new() };
        Work { goods: Arc::clone(goods), fill: fill.into(), collection, what }
    }

    /// Writes the n-th request of a connection and says what must come back; `None` when nothing is left to do.
    pub(super) fn request(
        &self,
        place: Place,
        n: u64,
        bytes: &mut Vec<u8>,
    ) -> Result<Option<Expected<'_>>> {
        let goods = &self.goods;
        // Connections begin at different lines, so that they do not ask for the same at the same time.
        let apart = (goods.bought.len() / place.connections.max(1)) * place.number;
        let line = n + apart as u64;
        let nth = place.number + usize::try_from(n)? * place.connections;
        let (product, write) = match self.what {
            What::Warm => (goods.line(line, WARM)?, false),
            What::Bought => (goods.line(line, usize::MAX)?, false),
            What::Mixed => {
                let write = (n + place.number as u64).is_multiple_of(WRITES_ONE_IN);
                (goods.line(line, usize::MAX)?, write)
            }
            What::Put => (goods.line(line, usize::MAX)?, true),
            What::Each => match goods.products.get(nth) {
                Some(product) => (product, false),
                None => return Ok(None),
            },
            What::Fill => match self.fill.get(nth) {
                Some(product) => (goods.product(*product)?, false),
                None => return Ok(None),
            },
            What::List(count) => {
                write!(
                    bytes,
                    "GET {}?limit={count} HTTP/1.1\r\nHost: localhost\r\n\r\n",
                    self.collection
                )?;
                return Ok(Some(Expected::List(count)));
            }
        };
        if write {
            put(self.collection, product, n, "", bytes)?;
        } else {
            get(self.collection, &product.id, "", bytes)?;
        }
        Ok(Some(Expected::Record(&product.id)))
    }
}

/// Writes a request for a product. Further header lines end with a line break.
pub(super) fn get(collection: &str, id: &str, headers: &str, bytes: &mut Vec<u8>) -> Result<()> {
    write!(bytes, "GET {collection}/{id} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n")?;
    Ok(())
}

/// Writes a request that stores a product with a stock.
pub(super) fn put(
    collection: &str,
    product: &Product,
    stock: u64,
    headers: &str,
    bytes: &mut Vec<u8>,
) -> Result<()> {
    let (id, json) = (&product.id, product.json(stock));
    write!(
        bytes,
        "PUT {collection}/{id} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{headers}Content-Length: {}\r\n\r\n{json}",
        json.len()
    )?;
    Ok(())
}
