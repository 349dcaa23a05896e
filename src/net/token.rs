//! Who may speak: secrets, job keys and the tokens made from them.
//!
//! The switch and the driver share a secret. From it and the job's id both derive the job's key; with the key the driver
//! makes one token for itself and one for each start of a pack, bound to the job, the ranks, the incarnation and an
//! expiry. The switch keeps no table of tokens: it makes the same one again and compares in constant time.
//!
//! A token works both ways. A client sends a nonce and, in place of its token's code, a code that is made from both; a switch that knows
//! the secret finds the token from it and answers with another such code. A process that has taken the switch's port can neither answer nor
//! use what it was sent.

use crate::random;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use std::fmt;
use thiserror::Error;

/// The shortest secret that is accepted, in bytes.
pub const SECRET_MIN: usize = 16;

/// What a switch and its drivers share. Never printed, never in an event, never an argument.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

/// A secret that is none.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "the switch's secret has {0} bytes and needs at least {SECRET_MIN}; make one with: head -c 32 /dev/urandom | base64"
)]
pub struct ShortSecret(usize);

impl Secret {
    /// Takes a secret as it was found in a file or a variable; blanks around it do not count.
    ///
    /// # Errors
    /// When it is shorter than [`SECRET_MIN`].
    pub fn new(text: &str) -> Result<Secret, ShortSecret> {
        let text = text.trim();
        if text.len() < SECRET_MIN {
            Err(ShortSecret(text.len()))
        } else {
            Ok(Secret(text.as_bytes().to_vec()))
        }
    }

    /// A fresh secret, for a switch in the driver's own process.
    pub fn random() -> Secret {
        Secret(random::bytes::<32>().to_vec())
    }

    /// The key of one job.
    pub fn job_key(&self, job: JobId) -> JobKey {
        JobKey(mac(&self.0, &[b"lswitch job", &job.0]))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A job's random 128-bit id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct JobId(pub [u8; 16]);

impl JobId {
    /// A fresh id.
    pub fn random() -> JobId {
        JobId(random::bytes())
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&random::to_hex(&self.0))
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "JobId({self})")
    }
}

/// What tokens of one job are made with.
#[derive(Clone)]
pub struct JobKey([u8; 32]);

/// Whom a token is for. A token for one bearer is none for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Bearer {
    /// The driver of the job.
    Driver,
    /// One start of a pack.
    Pack {
        /// Its lowest rank.
        first_rank: u32,
        /// How many ranks it has.
        ranks: u32,
        /// The number of this start.
        incarnation: u32,
    },
}

/// The proof that a driver made, good for one bearer until it expires.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Seconds since 1970 after which it is refused.
    pub expiry_s: u64,
    /// HMAC-SHA256.
    pub code: [u8; 32],
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Token(expiry {})", self.expiry_s)
    }
}

/// What a client makes up for one connection.
pub type Nonce = [u8; 32];

/// The code by which a switch shows that it knows a token.
pub type Proof = [u8; 32];

impl Token {
    /// The token as it travels beside a nonce.
    pub fn sealed(&self, nonce: &Nonce) -> Token {
        Token {
            code: self.sealing(b"hello", nonce).finalize().into_bytes().into(),
            ..*self
        }
    }

    /// What a switch that knows the token answers.
    pub fn proof(&self, nonce: &Nonce) -> Proof {
        self.sealing(b"welcome", nonce)
            .finalize()
            .into_bytes()
            .into()
    }

    /// Whether a switch's answer shows that it knows the token; in constant time.
    pub fn is_proved_by(&self, proof: &Proof, nonce: &Nonce) -> bool {
        self.sealing(b"welcome", nonce).verify_slice(proof).is_ok()
    }

    fn sealing(&self, purpose: &[u8], nonce: &Nonce) -> Hmac<Sha256> {
        keyed(&self.code, &[purpose, nonce])
    }
}

impl JobKey {
    /// Makes a token.
    pub fn token(&self, bearer: Bearer, expiry_s: u64) -> Token {
        Token {
            expiry_s,
            code: self.mac(bearer, expiry_s).finalize().into_bytes().into(),
        }
    }

    /// True if `token` was made with this key for `bearer` and has not expired.
    pub fn verify(&self, token: &Token, bearer: Bearer, now_s: u64) -> bool {
        let genuine = self
            .mac(bearer, token.expiry_s)
            .verify_slice(&token.code)
            .is_ok();
        genuine && now_s <= token.expiry_s
    }

    /// The answer to a token that came beside a nonce, if it was made with this key for `bearer` and has not expired.
    pub fn verify_sealed(
        &self,
        sealed: &Token,
        nonce: &Nonce,
        bearer: Bearer,
        now_s: u64,
    ) -> Option<Proof> {
        let token = self.token(bearer, sealed.expiry_s);
        let genuine = token.sealing(b"hello", nonce).verify_slice(&sealed.code);
        (genuine.is_ok() && now_s <= sealed.expiry_s).then(|| token.proof(nonce))
    }

    fn mac(&self, bearer: Bearer, expiry_s: u64) -> Hmac<Sha256> {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        match bearer {
            Bearer::Driver => mac.update(b"driver"),
            Bearer::Pack {
                first_rank,
                ranks,
                incarnation,
            } => {
                mac.update(b"pack");
                [first_rank, ranks, incarnation]
                    .iter()
                    .for_each(|number| mac.update(&number.to_le_bytes()));
            }
        }
        mac.update(&expiry_s.to_le_bytes());
        mac
    }
}

fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    keyed(key, parts).finalize().into_bytes().into()
}

fn keyed(key: &[u8], parts: &[&[u8]]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    parts.iter().for_each(|part| mac.update(part));
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_its_bearer_its_job_and_its_time_alone() {
        let secret = Secret::new("0123456789abcdef").expect("long enough");
        let key = secret.job_key(JobId([1; 16]));
        let pack = |first_rank, ranks, incarnation| Bearer::Pack {
            first_rank,
            ranks,
            incarnation,
        };
        let token = key.token(pack(4, 2, 1), 1000);
        assert!(key.verify(&token, pack(4, 2, 1), 1000));
        assert!(!key.verify(&token, pack(4, 2, 1), 1001));
        for other in [pack(5, 2, 1), pack(4, 3, 1), pack(4, 2, 2), Bearer::Driver] {
            assert!(!key.verify(&token, other, 1000), "{other:?}");
        }
        assert!(
            !secret
                .job_key(JobId([2; 16]))
                .verify(&token, pack(4, 2, 1), 1000)
        );
        assert!(
            !Secret::random()
                .job_key(JobId([1; 16]))
                .verify(&token, pack(4, 2, 1), 1000)
        );
        let longer = Token {
            expiry_s: 2000,
            ..token
        };
        assert!(!key.verify(&longer, pack(4, 2, 1), 1000));
    }

    #[test]
    fn a_switch_proves_that_it_knows_the_token_which_it_is_not_sent() {
        let key = Secret::random().job_key(JobId([1; 16]));
        let (token, nonce) = (key.token(Bearer::Driver, 1000), [7; 32]);
        let sealed = token.sealed(&nonce);
        let answer = |key: &JobKey, sealed: &Token, nonce: &Nonce, bearer, now_s| {
            key.verify_sealed(sealed, nonce, bearer, now_s)
        };
        let proof = answer(&key, &sealed, &nonce, Bearer::Driver, 1000).expect("it is genuine");
        assert!(token.is_proved_by(&proof, &nonce));
        assert!(!token.is_proved_by(&proof, &[8; 32]));
        // What is sent shows neither the token nor the answer, and is no token itself.
        for other in [token.code, proof] {
            assert_ne!(sealed.code, other);
            assert!(!token.is_proved_by(&sealed.code, &nonce));
        }
        assert!(!key.verify(&sealed, Bearer::Driver, 1000));
        let stranger = Secret::random().job_key(JobId([1; 16]));
        let longer = Token {
            expiry_s: 2000,
            ..sealed
        };
        let pack = Bearer::Pack {
            first_rank: 0,
            ranks: 1,
            incarnation: 1,
        };
        for refused in [
            answer(&stranger, &sealed, &nonce, Bearer::Driver, 1000),
            answer(&key, &token, &nonce, Bearer::Driver, 1000),
            answer(&key, &sealed, &[8; 32], Bearer::Driver, 1000),
            answer(&key, &sealed, &nonce, pack, 1000),
            answer(&key, &sealed, &nonce, Bearer::Driver, 1001),
            answer(&key, &longer, &nonce, Bearer::Driver, 1000),
        ] {
            assert_eq!(refused, None);
        }
    }

    #[test]
    fn a_secret_is_never_printed_and_a_short_one_is_refused() {
        assert_eq!(format!("{:?}", Secret::random()), "Secret(..)");
        assert_eq!(Secret::new("  short\n").err(), Some(ShortSecret(5)));
    }
}
