//! One value: AES-256-GCM under the key of its subject, with a nonce that follows from the value.
//!
//! The nonce is an HMAC of the value and its place, so the same value sealed twice is the same text: a repeated request
//! is known by its fingerprint, and a record written again unchanged compares equal. What that tells is that two values
//! of one subject in one field are equal, and nothing of values of different subjects.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hmac::{self, HMAC_SHA256};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use unisono_core::{Error, ErrorKind, Result};

/// What a key is made from.
pub(crate) type Material = [u8; 32];
/// What a subject is called where its name must not be: an HMAC of it.
pub(crate) type Name = [u8; 16];
/// Tells the keys of a subject from each other; none is given twice.
pub(crate) type KeyId = [u8; 8];

const NAME: usize = size_of::<Name>();
const ID: usize = size_of::<KeyId>();

/// What everything else is derived from, or encrypted with: the secret of the configuration.
pub(super) struct Root {
    wrapping: LessSafeKey,
    names: hmac::Key,
    prints: hmac::Key,
}

impl Root {
    pub(super) fn new(secret: &[u8]) -> Result<Self> {
        let secret = hmac::Key::new(HMAC_SHA256, secret);
        Ok(Root {
            wrapping: aead(&derived(&secret, "unisono keys 1"))?,
            names: hmac::Key::new(HMAC_SHA256, &derived(&secret, "unisono names 1")),
            prints: hmac::Key::new(HMAC_SHA256, &derived(&secret, "unisono fingerprints 1")),
        })
    }

    /// What a subject is called.
    pub(super) fn name(&self, subject: &str) -> Name {
        first(hmac::sign(&self.names, subject.as_bytes()).as_ref())
    }

    /// A fingerprint from which nobody without the secret can guess what it is of.
    pub(super) fn blinded(&self, fingerprint: u128) -> u128 {
        u128::from_le_bytes(first(hmac::sign(&self.prints, &fingerprint.to_le_bytes()).as_ref()))
    }

    /// A secret as it is kept, bound to what it is of.
    pub(super) fn wrap(&self, secret: &[u8], of: &str, nonce: [u8; NONCE_LEN]) -> Result<String> {
        let mut sealed = nonce.to_vec();
        sealed.extend(encrypt(&self.wrapping, nonce, of, secret)?);
        Ok(BASE64_STANDARD.encode(sealed))
    }

    /// The secret; nothing if it is of something else, or was kept with another secret.
    pub(super) fn unwrap(&self, kept: &str, of: &str) -> Option<Vec<u8>> {
        let kept = BASE64_STANDARD.decode(kept).ok()?;
        let (nonce, sealed) = kept.split_first_chunk()?;
        decrypt(&self.wrapping, *nonce, of, sealed)
    }
}

/// A key of one subject.
pub(crate) struct SubjectKey {
    pub(super) id: KeyId,
    values: LessSafeKey,
    nonces: hmac::Key,
}

impl SubjectKey {
    pub(super) fn new(id: KeyId, material: &Material) -> Result<Self> {
        let material = hmac::Key::new(HMAC_SHA256, material);
        Ok(SubjectKey {
            id,
            values: aead(&derived(&material, "unisono values 1"))?,
            nonces: hmac::Key::new(HMAC_SHA256, &derived(&material, "unisono nonces 1")),
        })
    }

    /// The text that stands for a value of a subject at a place.
    pub(super) fn seal(&self, name: &Name, place: &str, clear: &str) -> Result<String> {
        let mut context = hmac::Context::with_key(&self.nonces);
        context.update(&(place.len() as u64).to_le_bytes());
        context.update(place.as_bytes());
        context.update(clear.as_bytes());
        let nonce: [u8; NONCE_LEN] = first(context.sign().as_ref());
        let sealed = encrypt(&self.values, nonce, place, clear.as_bytes())?;
        let parts: [&[u8]; 4] = [name, &self.id, &nonce, &sealed];
        Ok(BASE64_URL_SAFE_NO_PAD.encode(parts.concat()))
    }

    /// The value; `corrupt` if it is not what was sealed at that place.
    pub(super) fn open(&self, place: &str, sealed: &Sealed) -> Result<String> {
        let clear = decrypt(&self.values, sealed.nonce, place, &sealed.value);
        let text = clear.and_then(|clear| String::from_utf8(clear).ok());
        text.ok_or_else(|| corrupt().with("field", place))
    }
}

/// A sealed value, taken apart.
pub(super) struct Sealed {
    pub(super) name: Name,
    pub(super) id: KeyId,
    nonce: [u8; NONCE_LEN],
    value: Vec<u8>,
}

impl Sealed {
    pub(super) fn parse(text: &str) -> Result<Self> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| corrupt())?;
        let (name, rest) = bytes.split_first_chunk::<NAME>().ok_or_else(corrupt)?;
        let (id, rest) = rest.split_first_chunk::<ID>().ok_or_else(corrupt)?;
        let (nonce, value) = rest.split_first_chunk().ok_or_else(corrupt)?;
        Ok(Sealed { name: *name, id: *id, nonce: *nonce, value: value.to_vec() })
    }
}

/// Bytes as they stand in names.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes from names.
pub(super) fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let byte = |n: usize| u8::from_str_radix(text.get(2 * n..2 * n + 2)?, 16).ok();
    let bytes = (0..N).map(byte).collect::<Option<Vec<_>>>()?;
    bytes.try_into().ok().filter(|_| text.len() == 2 * N)
}

fn derived(key: &hmac::Key, purpose: &str) -> Material {
    first(hmac::sign(key, purpose.as_bytes()).as_ref())
}

/// The first bytes of an HMAC-SHA256, which has 32.
fn first<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut first = [0; N];
    first.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    first
}

fn aead(key: &Material) -> Result<LessSafeKey> {
    let key = UnboundKey::new(&AES_256_GCM, key);
    key.map(LessSafeKey::new).map_err(|_| Error::internal("a key has the wrong length"))
}

fn encrypt(key: &LessSafeKey, nonce: [u8; NONCE_LEN], of: &str, clear: &[u8]) -> Result<Vec<u8>> {
    let mut bytes = clear.to_vec();
    let nonce = Nonce::assume_unique_for_key(nonce);
    key.seal_in_place_append_tag(nonce, Aad::from(of.as_bytes()), &mut bytes)
        .map_err(|_| Error::internal("a value could not be encrypted"))?;
    Ok(bytes)
}

fn decrypt(key: &LessSafeKey, nonce: [u8; NONCE_LEN], of: &str, sealed: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = sealed.to_vec();
    let nonce = Nonce::assume_unique_for_key(nonce);
    let clear = key.open_in_place(nonce, Aad::from(of.as_bytes()), &mut bytes).ok()?.len();
    bytes.truncate(clear);
    Some(bytes)
}

fn corrupt() -> Error {
    Error::new(ErrorKind::Corrupt, "an encrypted personal value is not as it was written")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> SubjectKey {
        SubjectKey::new([n; 8], &[n; 32]).unwrap()
    }

    #[test]
    fn a_value_is_opened_by_its_key_at_its_place_only() {
        let sealed = key(1).seal(&[7; 16], "person.name", "Kim").unwrap();
        assert!(!sealed.contains("Kim"));
        assert_eq!(sealed, key(1).seal(&[7; 16], "person.name", "Kim").unwrap(), "a repetition");
        assert_ne!(sealed, key(2).seal(&[7; 16], "person.name", "Kim").unwrap(), "another key");
        let sealed = Sealed::parse(&sealed).unwrap();
        assert_eq!((sealed.name, sealed.id), ([7; 16], [1; 8]));
        assert_eq!(key(1).open("person.name", &sealed).unwrap(), "Kim");
        let refused = |key: SubjectKey, place| key.open(place, &sealed).unwrap_err().kind();
        assert_eq!(refused(key(1), "person.mail"), ErrorKind::Corrupt);
        assert_eq!(refused(key(2), "person.name"), ErrorKind::Corrupt);
        assert!(Sealed::parse("AAAA").is_err() && Sealed::parse("no base64!").is_err());
    }

    #[test]
    fn equal_values_at_two_places_look_different() {
        let sealed = |place| {
            let text = key(1).seal(&[7; 16], place, "Kim").unwrap();
            Sealed::parse(&text).unwrap().value
        };
        assert_ne!(sealed("person.name"), sealed("person.mail"));
    }

    #[test]
    fn a_kept_secret_is_of_one_thing_and_one_root() {
        let root = Root::new(&[1; 32]).unwrap();
        let kept = root.wrap(b"material", "a", [3; 12]).unwrap();
        assert_eq!(root.unwrap(&kept, "a").unwrap(), b"material");
        assert!(root.unwrap(&kept, "b").is_none());
        assert!(Root::new(&[2; 32]).unwrap().unwrap(&kept, "a").is_none());
        assert!(root.unwrap("", "a").is_none());
        assert_ne!(root.name("7"), root.name("8"));
        assert_ne!(root.blinded(7), 7);
    }

    #[test]
    fn names_are_read_back() {
        assert_eq!(unhex::<2>(&hex(&[1, 0xff])), Some([1, 0xff]));
        assert!(
            unhex::<2>("01").is_none() && unhex::<1>("0101").is_none() && unhex::<1>("é").is_none()
        );
    }
}
