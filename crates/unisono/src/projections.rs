//! Projections that are written in Rust: declared beside those of the configuration before it is opened.

use std::sync::Arc;

use unisono_config::Configuration;
use unisono_core::kind::Options;
use unisono_core::{Error, ErrorKind, Result};
use unisono_policy::ack::AckPolicy;
use unisono_policy::declaration::{EntityDeclaration, FollowerDeclaration};
use unisono_policy::delivery::DeliveryPolicy;
use unisono_policy::projection::{BESIDE, Projection};
use unisono_policy::read::ReadPolicy;
use unisono_policy::write::WritePolicy;

/// Adds a projection whose rows some sources keep. It is then opened, kept and read as one that is declared.
///
/// Fails with `invalid_config` if its name is taken, or what it is worked out from or a source is not declared.
pub fn project(
    configuration: &mut Configuration,
    projection: Projection,
    targets: &[&str],
) -> Result<()> {
    let declaration = &mut configuration.declaration;
    let wrong = |message: &'static str| Error::new(ErrorKind::InvalidConfig, message);
    let name = Arc::clone(projection.name());
    let beside: Arc<str> = format!("{name}{BESIDE}").into();
    if declaration.entities.contains_key(&name) || declaration.entities.contains_key(&beside) {
        return Err(wrong("the name of the projection is taken").of(&name));
    }
    let from = declaration.entities.get(projection.from.name());
    let from = from.filter(|from| from.projection.is_none()).ok_or_else(|| {
        wrong("what the projection is worked out from is not declared").of(projection.from.name())
    })?;
    let mut followers = Vec::with_capacity(targets.len());
    for target in targets {
        let (source, _) = declaration
            .sources
            .get_key_value(*target)
            .ok_or_else(|| wrong("the source is not declared").at(target))?;
        followers.push(FollowerDeclaration {
            source: Arc::clone(source),
            place: None,
            options: Options::default(),
            map: None,
            clear: false,
            filter: None,
            delivery: DeliveryPolicy::default(),
        });
    }
    let declared = EntityDeclaration {
        entity: Arc::clone(&projection.rows),
        truth: Arc::clone(&from.truth),
        table: None,
        truth_options: Options::default(),
        cache: None,
        followers,
        read: ReadPolicy::default(),
        write: WritePolicy::default(),
        ack: AckPolicy::default(),
        strategy: None,
        adaptive: None,
        projection: Some(Arc::new(projection)),
        sync: None,
    };
    declaration.entities.insert(name, declared);
    Ok(())
}
