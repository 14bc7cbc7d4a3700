//! MongoDB: documents with a version.

use mongodb::bson::{Document, doc};
use unisono_core::kind::Options;

use crate::hand::Damage;
use crate::{Failed, engines};

pub(crate) async fn damage(options: &Options, damage: &Damage) -> Result<(), Failed> {
    let items = engines::mongodb::open(options).await?.collection::<Document>("item");
    let among = |keys: &[String]| doc! { "_id": { "$in": keys } };
    items
        .update_many(among(&damage.changed), doc! { "$set": { "name": "changed by hand" } })
        .await?;
    items.delete_many(among(&damage.deleted)).await?;
    let added = damage
        .added
        .iter()
        .map(|id| doc! { "_id": id, "name": "added by hand", "stock": 1_i64, "_v": 5_i64 });
    items.insert_many(added).await?;
    items.update_many(among(&damage.older), doc! { "$inc": { "_v": -1_i64 } }).await?;
    items
        .update_many(among(&damage.newer), doc! { "$inc": { "_v": damage.shift() as i64 } })
        .await?;
    Ok(())
}
