package notify

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	"github.com/google/go-cmp/cmp"
)

// mailServer is a real one.
type mailServer struct {
	addr, roots string
	mu          sync.Mutex
	got         []letter
	refuse      []error // of the next deliveries
	drop        bool    // the answer to the text is lost
}

type letter struct {
	from string
	to   []string
	text string
	tls  bool
	user string
}

// seen is what came so far.
func (s *mailServer) seen() []letter {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.got)
}

func (s *mailServer) NewSession(c *smtp.Conn) (smtp.Session, error) {
	return &mailSession{s: s, c: c}, nil
}

type mailSession struct {
	s *mailServer
	c *smtp.Conn
	l letter
}

func (m *mailSession) AuthMechanisms() []string { return []string{sasl.Plain} }

func (m *mailSession) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		if user != "fairlead" || password != "s3cret" {
			return smtp.ErrAuthFailed
		}
		m.l.user = user
		return nil
	}), nil
}

func (m *mailSession) Mail(from string, _ *smtp.MailOptions) error { m.l.from = from; return nil }

func (m *mailSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	m.l.to = append(m.l.to, to)
	return nil
}

func (m *mailSession) Data(r io.Reader) error {
	text, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	m.l.text = string(text)
	_, m.l.tls = m.c.TLSConnectionState()
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	if len(m.s.refuse) > 0 {
		err := m.s.refuse[0]
		m.s.refuse = m.s.refuse[1:]
		return err
	}
	m.s.got = append(m.s.got, m.l)
	if m.s.drop {
		m.c.Conn().Close()
	}
	return nil
}

func (m *mailSession) Reset()        {}
func (m *mailSession) Logout() error { return nil }

func newMailServer(t *testing.T, encrypted bool) *mailServer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true},
		&x509.Certificate{SerialNumber: big.NewInt(1)}, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	s := &mailServer{roots: filepath.Join(t.TempDir(), "ca.pem")}
	if err := os.WriteFile(s.roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	srv := smtp.NewServer(s)
	srv.Domain = "mail.example.com"
	srv.ErrorLog = discard{}
	if encrypted {
		srv.TLSConfig = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	} else {
		srv.AllowInsecureAuth = true
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = ln.Addr().String()
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(ln) }() // ends with Close
	t.Cleanup(func() { srv.Close(); <-done })
	return s
}

type discard struct{}

func (discard) Printf(string, ...any) {}
func (discard) Println(...any)        {}

func (s *mailServer) box(t *testing.T, with func(*Mail)) *Box {
	t.Helper()
	m := Mail{Address: s.addr, From: "Fairlead <fairlead@example.com>", User: "fairlead", Password: "smtp-password", Roots: s.roots}
	if with != nil {
		with(&m)
	}
	return newBox(t, t.TempDir(), func(o *Options) {
		o.Mail = m
		o.Secret = func(name string) (string, error) {
			return map[string]string{"smtp-password": "s3cret", "wrong": "wrong"}[name], nil
		}
	})
}

var letterBox = Target{Kind: "email", To: "checkout@example.com"}

func TestMail(t *testing.T) {
	s := newMailServer(t, true)
	b := s.box(t, nil)
	c := change
	c.Reason = "für alle\n.\n.\r\nBcc: everybody@example.com"
	c.Caller = "checkout\r\nBcc: evil@example.com" // no registry has such a name
	c.Author.Name = "Mira\r\nX-Evil: yes"
	if err := b.Tell(c, letterBox); err != nil {
		t.Fatal(err)
	}
	b.round(t.Context())
	all := s.seen()
	if len(all) != 1 {
		t.Fatalf("%d came, the outbox has %v", len(all), inStates(b))
	}
	got := all[0]
	if !got.tls || got.user != "fairlead" || got.from != "fairlead@example.com" || !cmp.Equal(got.to, []string{"checkout@example.com"}) {
		t.Errorf("%+v", got)
	}
	m, err := mail.ReadMessage(strings.NewReader(got.text))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for n := range m.Header {
		names = append(names, n)
	}
	if len(names) != 9 || m.Header.Get("Bcc") != "" || m.Header.Get("X-Evil") != "" {
		t.Errorf("the headers are %v", m.Header)
	}
	subject, err := new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject"))
	if err != nil || subject != "checkout Bcc: evil@example.com may call billing" {
		t.Errorf("the subject is %q, %v", subject, err)
	}
	if id := m.Header.Get("Message-Id"); id != "<"+key(c.ID, letterBox)+"@example.com>" {
		t.Errorf("the ID is %q", id)
	}
	if _, err := m.Header.Date(); err != nil {
		t.Error(err)
	}
	text, err := io.ReadAll(quotedprintable.NewReader(m.Body))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"  /billing.v1.Billing/Charge", "By: Mira X-Evil: yes <mira@example.com>", "für alle\r\n.\r\n.\r\nBcc:", "Details: https://portal.example.com/requests/0123456789ab"} {
		if !strings.Contains(strings.ReplaceAll(strings.ReplaceAll(string(text), "\r\n", "\n"), "\n", "\r\n"), want) {
			t.Errorf("no %q in %q", want, text)
		}
	}
}

func TestMailDelivery(t *testing.T) {
	for _, c := range []struct {
		name  string
		with  func(*Mail)
		plain bool
		set   func(*mailServer)
		got   int
		in    string
	}{
		{"busy, then well", nil, false, func(s *mailServer) { s.refuse = []error{&smtp.SMTPError{Code: 451, Message: "later"}} }, 1, sent},
		{"refused", nil, false, func(s *mailServer) { s.refuse = []error{&smtp.SMTPError{Code: 550, Message: "no such user"}} }, 0, failed},
		{"the answer is lost", nil, false, func(s *mailServer) { s.drop = true }, 1, unknown},
		{"a wrong password", func(m *Mail) { m.Password = "wrong" }, false, nil, 0, failed},
		{"another authority's certificate", func(m *Mail) { m.Roots = "" }, false, nil, 0, pending},
		{"no STARTTLS", nil, true, nil, 0, pending},
		{"in the clear on this machine", func(m *Mail) { m.TLS = "none" }, true, nil, 1, sent},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newMailServer(t, !c.plain)
			if c.set != nil {
				c.set(s)
			}
			b := s.box(t, c.with)
			if err := b.Tell(change, letterBox); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				b.round(t.Context())
			}
			if got := s.seen(); len(got) != c.got || !cmp.Equal(inStates(b), map[string]int{c.in: 1}) {
				t.Errorf("%d came, the outbox has %v; want %d in %s", len(got), inStates(b), c.got, c.in)
			}
		})
	}
	for name, m := range map[string]Mail{
		"in the clear, afar": {Address: "mail.example.com:25", From: "a@example.com", TLS: "none"},
		"no port":            {Address: "mail.example.com", From: "a@example.com"},
		"no sender":          {Address: "mail.example.com:25"},
		"another way":        {Address: "mail.example.com:25", From: "a@example.com", TLS: "ssl"},
	} {
		if _, err := New(Options{Dir: t.TempDir(), Mail: m}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
