//! The table: reads from the replica and, if that fails or knows nothing, from the primary; writes on the primary.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio_postgres::{Client, Row, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::variable;
use crate::Result;
use crate::engines::trusting;

/// Connections for reads, to each server. Statements are sent on without waiting for the answer to the one before, so
/// that a connection need not be lent to one caller; that was quicker than a pool which does.
const READING: usize = 8;
/// Connections for writes, each lent to one caller: commits of one connection come one after the other.
const WRITING: usize = 32;

const COLUMNS: &str =
    "id, department, category, type, brand, manufacturer, package_size, price::text, stock";

#[derive(Serialize, Deserialize)]
pub(super) struct Product {
    id: String,
    department: Option<String>,
    category: Option<String>,
    r#type: Option<String>,
    brand: Option<String>,
    manufacturer: Option<String>,
    package_size: Option<String>,
    price: Option<String>,
    stock: Option<i64>,
}

impl Product {
    fn of(row: &Row) -> Result<Self> {
        Ok(Product {
            id: row.try_get(0)?,
            department: row.try_get(1)?,
            category: row.try_get(2)?,
            r#type: row.try_get(3)?,
            brand: row.try_get(4)?,
            manufacturer: row.try_get(5)?,
            package_size: row.try_get(6)?,
            price: row.try_get(7)?,
            stock: row.try_get(8)?,
        })
    }
}

struct Reading {
    client: Client,
    get: Statement,
    list: Statement,
}

/// The connections for reads to one server.
struct Readers {
    all: Vec<Reading>,
    next: AtomicUsize,
}

impl Readers {
    async fn open(url: &str) -> Result<Self> {
        let mut all = Vec::new();
        for _ in 0..READING {
            let client = connect(url).await?;
            let get = format!("SELECT {COLUMNS} FROM by_hand WHERE id = $1");
            let list = format!("SELECT {COLUMNS} FROM by_hand ORDER BY id LIMIT $1");
            let (get, list) = (client.prepare(&get).await?, client.prepare(&list).await?);
            all.push(Reading { client, get, list });
        }
        Ok(Readers { all, next: AtomicUsize::new(0) })
    }

    fn next(&self) -> Result<&Reading> {
        let n = self.next.fetch_add(1, Ordering::Relaxed) % READING;
        self.all.get(n).ok_or_else(|| "no connection".into())
    }

    async fn get(&self, id: &str) -> Result<Option<Product>> {
        let reading = self.next()?;
        let row = reading.client.query_opt(&reading.get, &[&id]).await?;
        row.as_ref().map(Product::of).transpose()
    }

    async fn list(&self, limit: i64) -> Result<Vec<Product>> {
        let reading = self.next()?;
        reading.client.query(&reading.list, &[&limit]).await?.iter().map(Product::of).collect()
    }
}

struct Writing {
    client: Client,
    insert: Statement,
    update: Statement,
    delete: Statement,
}

pub(super) struct Store {
    primary: Readers,
    replica: Readers,
    free: Semaphore,
    writing: Mutex<Vec<Writing>>,
}

async fn connect(url: &str) -> Result<Client> {
    let tls = MakeRustlsConnect::new(trusting(&variable("BASELINE_CA")?)?);
    let (client, connection) = tokio_postgres::connect(url, tls).await?;
    tokio::spawn(connection);
    let schema = variable("BASELINE_SCHEMA")?;
    client.batch_execute(&format!("SET search_path TO \"{schema}\"")).await?;
    Ok(client)
}

impl Store {
    pub(super) async fn open() -> Result<Self> {
        let (primary, replica) = (variable("BASELINE_PRIMARY")?, variable("BASELINE_REPLICA")?);
        let mut writing = Vec::new();
        for _ in 0..WRITING {
            let client = connect(&primary).await?;
            let insert = client
                .prepare(
                    "INSERT INTO by_hand VALUES ($1, $2, $3, $4, $5, $6, $7, $8::text::numeric, $9)",
                )
                .await?;
            let update = client
                .prepare(
                    "UPDATE by_hand SET department = $2, category = $3, type = $4, brand = $5, manufacturer = $6,
                     package_size = $7, price = $8::text::numeric, stock = $9 WHERE id = $1",
                )
                .await?;
            let delete = client.prepare("DELETE FROM by_hand WHERE id = $1").await?;
            writing.push(Writing { client, insert, update, delete });
        }
        Ok(Store {
            primary: Readers::open(&primary).await?,
            replica: Readers::open(&replica).await?,
            free: Semaphore::new(WRITING),
            writing: Mutex::new(writing),
        })
    }

    /// A product, and which server answered.
    pub(super) async fn get(&self, id: &str) -> Result<(Option<Product>, &'static str)> {
        if let Ok(Some(product)) = self.replica.get(id).await {
            return Ok((Some(product), "replica"));
        }
        Ok((self.primary.get(id).await?, "primary"))
    }

    pub(super) async fn list(&self, limit: i64) -> Result<(Vec<Product>, &'static str)> {
        match self.replica.list(limit).await {
            Ok(items) => Ok((items, "replica")),
            Err(_) => Ok((self.primary.list(limit).await?, "primary")),
        }
    }

    pub(super) async fn insert(&self, product: &Product) -> Result<()> {
        self.write(|w| &w.insert, &product.id, Some(product)).await.map(|_| ())
    }

    /// Whether there was one to update.
    pub(super) async fn update(&self, id: &str, product: &Product) -> Result<bool> {
        Ok(self.write(|w| &w.update, id, Some(product)).await? > 0)
    }

    pub(super) async fn delete(&self, id: &str) -> Result<()> {
        self.write(|w| &w.delete, id, None).await.map(|_| ())
    }

    async fn write(
        &self,
        statement: fn(&Writing) -> &Statement,
        id: &str,
        product: Option<&Product>,
    ) -> Result<u64> {
        let _permit = self.free.acquire().await?;
        let taken = self.lent().pop();
        let writing = taken.ok_or("more permits than connections")?;
        let result = match product {
            Some(p) => {
                let values: [&(dyn tokio_postgres::types::ToSql + Sync); 9] = [
                    &id,
                    &p.department,
                    &p.category,
                    &p.r#type,
                    &p.brand,
                    &p.manufacturer,
                    &p.package_size,
                    &p.price,
                    &p.stock,
                ];
                writing.client.execute(statement(&writing), &values).await
            }
            None => writing.client.execute(statement(&writing), &[&id]).await,
        };
        self.lent().push(writing);
        Ok(result?)
    }

    fn lent(&self) -> std::sync::MutexGuard<'_, Vec<Writing>> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
