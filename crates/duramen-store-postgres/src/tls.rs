//! Encryption with rustls, checked as far as `sslmode` asks for.

use std::path::Path;
use std::sync::Arc;

use duramen_core::store::StoreError;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::certificate;
use crate::options::{Tls, Verify};

/// `direct`: TLS begins without Postgres's own question for it, and the server wants to know the protocol's name.
pub(crate) fn connector(tls: &Tls, direct: bool) -> Result<MakeRustlsConnect, StoreError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| invalid(format!("TLS cannot be set up: {error}")))?;
    let verifier: Arc<dyn ServerCertVerifier> = if tls.verify == Verify::Nothing {
        Arc::new(Anybody(provider))
    } else {
        Arc::new(Trusted::new(tls, provider)?)
    };
    let mut config = builder
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    if direct {
        config.alpn_protocols = vec![b"postgresql".to_vec()];
    }
    Ok(MakeRustlsConnect::new(config))
}

fn invalid(reason: String) -> StoreError {
    StoreError::Invalid { reason }
}

/// The certificates of the given file, else those of the system.
fn trusted(tls: &Tls) -> Result<Vec<CertificateDer<'static>>, StoreError> {
    let Some(path) = &tls.root_cert else {
        return Ok(rustls_native_certs::load_native_certs().certs);
    };
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| unreadable(path, &error))
}

fn unreadable(path: &Path, error: &dyn std::fmt::Display) -> StoreError {
    invalid(format!(
        "sslrootcert {} cannot be read: {error}",
        path.display()
    ))
}

/// Encrypts for whoever is there, as libpq does below `verify-ca`. The handshake's signatures are
/// checked all the same: the peer has the key of the certificate it shows.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Trusts a certificate that a known authority has signed, or that is itself one of the known ones; and asks it for the
/// host's name under `verify-full`.
#[derive(Debug)]
struct Trusted {
    inner: Arc<WebPkiServerVerifier>,
    /// Those of `sslrootcert`, byte for byte. A server whose certificate is signed by nobody else shows the very one
    /// that was handed out to be trusted; by the rules of the web, no such certificate may be a server's.
    known: Vec<CertificateDer<'static>>,
    verify: Verify,
}

impl Trusted {
    fn new(tls: &Tls, provider: Arc<CryptoProvider>) -> Result<Self, StoreError> {
        let mut roots = RootCertStore::empty();
        let mut known = trusted(tls)?;
        for certificate in &known {
            match (roots.add(certificate.clone()), &tls.root_cert) {
                (Err(error), Some(path)) => return Err(unreadable(path, &error)),
                // One odd certificate in the system's list is no reason to trust none of it.
                (Err(_), None) | (Ok(()), _) => {}
            }
        }
        if roots.is_empty() {
            return Err(invalid(
                "there is no authority to check the server's certificate with: give sslrootcert"
                    .to_owned(),
            ));
        }
        if tls.root_cert.is_none() {
            known.clear();
        }
        let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| invalid(format!("no authority can be trusted: {error}")))?;
        Ok(Self {
            inner,
            known,
            verify: tls.verify,
        })
    }
}

impl ServerCertVerifier for Trusted {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.known.iter().any(|known| known == end_entity) {
            certificate::check_dates(end_entity, now)?;
        } else {
            let verdict = self.inner.verify_server_cert(
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                now,
            );
            match verdict {
                // The name is looked at last: everything else is in order.
                Err(Error::InvalidCertificate(
                    CertificateError::NotValidForName
                    | CertificateError::NotValidForNameContext { .. },
                )) => {}
                other => return other,
            }
        }
        if self.verify == Verify::Host {
            certificate::check_name(end_entity, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
