// Package pki makes the keys and certificates of one cluster. They live and
// die with its state folder; nothing outside the machine ever trusts them.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"time"
)

// lifetime is longer than any machine keeps a test cluster, and the start lies
// back far enough for a clock that is corrected meanwhile.
const (
	lifetime = 2 * 365 * 24 * time.Hour
	backdate = time.Hour
)

// Authority signs certificates.
type Authority struct {
	cert *x509.Certificate
	key  crypto.Signer
	// CertPEM and KeyPEM are the authority's own.
	CertPEM, KeyPEM []byte
}

// Subject is whom a certificate speaks for. To Kubernetes the common name is
// the user and each organization a group.
type Subject struct {
	Name   string
	Groups []string
	// Hosts are DNS names and addresses of a server; none for a client.
	Hosts []string
}

// NewAuthority makes a self-signed authority.
func NewAuthority(name string) (*Authority, error) {
	key, keyPEM, err := NewKey()
	if err != nil {
		return nil, fmt.Errorf("make authority %s: %w", name, err)
	}
	template, err := newTemplate(Subject{Name: name})
	if err != nil {
		return nil, fmt.Errorf("make authority %s: %w", name, err)
	}
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make authority %s: %w", name, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("make authority %s: %w", name, err)
	}
	return &Authority{cert: cert, key: key, CertPEM: encode("CERTIFICATE", der), KeyPEM: keyPEM}, nil
}

// Issue makes a key and a certificate for s, good for clients and, when s has
// hosts, for servers too.
func (a *Authority) Issue(s Subject) (certPEM, keyPEM []byte, err error) {
	key, keyPEM, err := NewKey()
	if err != nil {
		return nil, nil, fmt.Errorf("issue a certificate to %s: %w", s.Name, err)
	}
	template, err := newTemplate(s)
	if err != nil {
		return nil, nil, fmt.Errorf("issue a certificate to %s: %w", s.Name, err)
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if len(s.Hosts) > 0 {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, nil, fmt.Errorf("issue a certificate to %s: %w", s.Name, err)
	}
	return encode("CERTIFICATE", der), keyPEM, nil
}

// NewKey makes a P-256 key: every program of the cluster takes one, and it is
// made at once, where RSA takes up to a second.
func NewKey() (crypto.Signer, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make a key: %w", err)
	}
	// SEC 1 is the form that every program here reads, for TLS and for the
	// signing of service account tokens alike.
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("make a key: %w", err)
	}
	return key, encode("EC PRIVATE KEY", der), nil
}

func newTemplate(s Subject) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: s.Name, Organization: s.Groups},
		NotBefore:    time.Now().Add(-backdate),
		NotAfter:     time.Now().Add(lifetime),
	}
	for _, h := range s.Hosts {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	return t, nil
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
