//! What the TLS library does not ask of a certificate, and servers of Postgres rest on: dates of one that is trusted as it
//! is, and a host that is named by the subject alone (`CN`), as the manual of Postgres makes them.

use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, Error};
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::der::asn1::ObjectIdentifier;

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const ALTERNATIVE_NAMES: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");

pub(crate) fn check_dates(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let validity = parsed(certificate)?.tbs_certificate.validity;
    if now.as_secs() < validity.not_before.to_unix_duration().as_secs() {
        return Err(CertificateError::NotValidYet.into());
    }
    if now.as_secs() > validity.not_after.to_unix_duration().as_secs() {
        return Err(CertificateError::Expired.into());
    }
    Ok(())
}

/// Whether it names the host: among its alternative names or, if it has none at all, as its subject's common name.
pub(crate) fn check_name(
    certificate: &CertificateDer<'_>,
    host: &ServerName<'_>,
) -> Result<(), Error> {
    let verdict =
        ParsedCertificate::try_from(certificate).and_then(|it| verify_server_name(&it, host));
    if verdict.is_ok() {
        return Ok(());
    }
    let subject = parsed(certificate)?;
    let extensions = subject.tbs_certificate.extensions.as_deref().unwrap_or(&[]);
    let has_alternatives = extensions
        .iter()
        .any(|one| one.extn_id == ALTERNATIVE_NAMES);
    match common_name(&subject) {
        Some(name) if !has_alternatives && names(name, &host.to_str()) => Ok(()),
        _ => verdict,
    }
}

fn parsed(certificate: &CertificateDer<'_>) -> Result<Certificate, Error> {
    Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding.into())
}

fn common_name(certificate: &Certificate) -> Option<&str> {
    let subject = &certificate.tbs_certificate.subject;
    let attributes = subject.0.iter().flat_map(|part| part.0.iter());
    let found = attributes
        .into_iter()
        .find(|attribute| attribute.oid == COMMON_NAME)?;
    std::str::from_utf8(found.value.value()).ok()
}

/// `*.example.org` names every host one level below.
fn names(name: &str, host: &str) -> bool {
    let below = |domain: &str| {
        host.split_once('.')
            .is_some_and(|(_, rest)| rest.contains('.') && rest.eq_ignore_ascii_case(domain))
            && host.parse::<std::net::IpAddr>().is_err()
    };
    name.eq_ignore_ascii_case(host) || name.strip_prefix("*.").is_some_and(below)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_common_name_names_a_host() {
        for (name, host, fits) in [
            ("db.example.org", "db.example.org", true),
            ("DB.example.org", "db.EXAMPLE.org", true),
            ("db.example.org", "db.example.com", false),
            ("*.example.org", "db.example.org", true),
            ("*.example.org", "a.db.example.org", false),
            ("*.example.org", "example.org", false),
            ("*.org", "example.org", false),
            ("*", "db", false),
            ("d*.example.org", "db.example.org", false),
            ("127.0.0.1", "127.0.0.1", true),
            ("*.0.0.1", "127.0.0.1", false),
            ("db.example.org\0.evil.example", "db.example.org", false),
        ] {
            assert_eq!(names(name, host), fits, "{name:?} for {host:?}");
        }
    }
}
