//! Where a switch is, and by which certificate it is known: `HOST:PORT[#SHA256]`. Pure.
//!
//! With a fingerprint the connection is TLS and the switch must have just that certificate; without one it is plain TCP.

use crate::random::{parse_hex, to_hex};
use sha2::{Digest, Sha256};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use thiserror::Error;

/// The SHA-256 of a certificate's DER.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// That of a certificate.
    pub fn of(der: &[u8]) -> Fingerprint {
        Fingerprint(Sha256::digest(der).into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&to_hex(&self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Fingerprint({self})")
    }
}

/// What follows the `#` of an address is no fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "the switch's address {0:?} does not end in a certificate's SHA-256: after # come 64 hexadecimal digits, as \"lswitch serve\" \
     prints them"
)]
pub struct AddressError(String);

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwitchAddress {
    place: String,
    pin: Option<Fingerprint>,
}

impl SwitchAddress {
    /// The switch at `place`, which has the certificate of this fingerprint, or speaks plain TCP.
    pub fn new(place: impl ToString, pin: Option<Fingerprint>) -> SwitchAddress {
        SwitchAddress {
            place: place.to_string(),
            pin,
        }
    }

    /// Where to connect to, `HOST:PORT`; what people are told of the switch.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// The certificate that the switch must have.
    pub fn pin(&self) -> Option<Fingerprint> {
        self.pin
    }

    /// True if bytes for it leave this machine in the clear, as far as can be told without asking for its name.
    pub fn is_exposed(&self) -> bool {
        self.pin.is_none() && !self.is_loopback()
    }

    fn is_loopback(&self) -> bool {
        let host = self.place.rsplit_once(':').map_or("", |(host, _)| host);
        let host = if host.is_empty() { &self.place } else { host };
        let number = host.trim_start_matches('[').trim_end_matches(']');
        host.eq_ignore_ascii_case("localhost")
            || number
                .parse()
                .is_ok_and(|ip: IpAddr| ip.to_canonical().is_loopback())
    }
}

/// Where switches are, for people.
pub fn places(addresses: &[SwitchAddress]) -> String {
    let places: Vec<&str> = addresses.iter().map(SwitchAddress::place).collect();
    places.join(", ")
}

impl From<SocketAddr> for SwitchAddress {
    fn from(address: SocketAddr) -> SwitchAddress {
        SwitchAddress::new(address, None)
    }
}

impl FromStr for SwitchAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<SwitchAddress, AddressError> {
        let Some((place, digits)) = text.split_once('#') else {
            return Ok(SwitchAddress::new(text, None));
        };
        let pin = parse_hex(digits).map(Fingerprint);
        let pin = pin.ok_or_else(|| AddressError(text.into()))?;
        Ok(SwitchAddress::new(place, Some(pin)))
    }
}

impl fmt::Display for SwitchAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.place)?;
        match self.pin {
            Some(pin) => write!(formatter, "#{pin}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        let pin = Fingerprint::of(b"");
        let known = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(pin.to_string(), known);
        let with = format!("10.0.0.5:7000#{known}");
        let address: SwitchAddress = with.parse().expect("it is one");
        assert_eq!(
            (address.place(), address.pin()),
            ("10.0.0.5:7000", Some(pin))
        );
        assert_eq!(address.to_string(), with);
        let upper: SwitchAddress = format!("h:1#{}", known.to_uppercase())
            .parse()
            .expect("it is one");
        assert_eq!(upper.pin(), Some(pin));
        let plain: SwitchAddress = "host:7000".parse().expect("it is one");
        assert_eq!(
            (plain.to_string().as_str(), plain.pin()),
            ("host:7000", None)
        );
        for broken in [
            "h:1#",
            "h:1#00",
            &format!("{with}0"),
            &format!("{with}#"),
            &with.replace('e', "x"),
        ] {
            let error = broken.parse::<SwitchAddress>().expect_err(broken);
            assert!(
                error.to_string().contains("64 hexadecimal digits"),
                "{error}"
            );
        }
    }

    #[test]
    fn what_leaves_the_machine_in_the_clear_is_known() {
        let pin = format!("#{}", Fingerprint::of(b"any"));
        for (place, exposed) in [
            ("127.0.0.1:7000", false),
            ("127.9.9.9:7000", false),
            ("[::1]:7000", false),
            ("[::ffff:127.0.0.1]:7000", false),
            ("localhost:7000", false),
            ("127.0.0.1", false),
            ("10.0.0.5:7000", true),
            ("0.0.0.0:7000", true),
            ("localhost.example.org:7000", true),
            ("[fe80::1]:7000", true),
            ("switch", true),
        ] {
            let address: SwitchAddress = place.parse().expect("it is one");
            assert_eq!(address.is_exposed(), exposed, "{place}");
            let address: SwitchAddress = format!("{place}{pin}").parse().expect("it is one");
            assert!(!address.is_exposed(), "{place}");
        }
    }
}
