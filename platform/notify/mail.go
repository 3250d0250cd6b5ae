package notify

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"net/netip"
	"net/smtp"
	"net/textproto"
	"os"
	"strings"
	"time"

	"fairlead.dev/api"
)

func (m Mail) check() error {
	if m.Address == "" {
		return nil
	}
	host, _, err := net.SplitHostPort(m.Address)
	if err != nil {
		return &api.Problem{Code: "bad-mail", Message: fmt.Sprintf("%q is no mail server", m.Address), Hint: "write host:port, as smtp.example.com:587"}
	}
	if _, err := mail.ParseAddress(m.From); err != nil {
		return &api.Problem{Code: "bad-mail", Message: fmt.Sprintf("%q is no sender of e-mail", m.From), Hint: "write an address, as Fairlead <fairlead@example.com>"}
	}
	switch m.TLS {
	case "", "starttls", "tls":
	case "none":
		if a, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !a.IsLoopback()) {
			return &api.Problem{Code: "bad-mail", Message: "e-mail to " + host + " would go unencrypted", Hint: "use starttls or tls; none is for a server on this machine"}
		}
	default:
		return &api.Problem{Code: "bad-mail", Message: fmt.Sprintf("%q is no way to encrypt e-mail", m.TLS), Hint: "write starttls, tls or none"}
	}
	return nil
}

const mailFor = 30 * time.Second

// mail sends one e-mail. Until the server was told that the text is over, nobody has it.
func (b *Box) mail(ctx context.Context, m message) (err error) {
	o := b.o.Mail
	if o.Address == "" {
		return &notTaken{errors.New("there is no mail server: set FAIRLEAD_MAIL_SERVER where the portal starts"), true}
	}
	text, to, err := mailText(m, o.From)
	if err != nil {
		return &notTaken{err, true}
	}
	over := false
	defer func() {
		if err == nil {
			return
		}
		var code *textproto.Error
		switch refused := errors.As(err, &code); {
		case refused:
			err = &notTaken{err, code.Code >= 500}
		case !over:
			err = &notTaken{err: err}
		}
	}()
	host, _, err := net.SplitHostPort(o.Address)
	if err != nil {
		return err
	}
	conf := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	if o.Roots != "" {
		pem, err := os.ReadFile(o.Roots)
		if err != nil {
			return fmt.Errorf("read the mail server's authorities: %w", err)
		}
		if conf.RootCAs = x509.NewCertPool(); !conf.RootCAs.AppendCertsFromPEM(pem) {
			return fmt.Errorf("%s has no certificate", o.Roots)
		}
	}
	d := net.Dialer{Timeout: mailFor}
	conn, err := d.DialContext(ctx, "tcp", o.Address)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if err := conn.SetDeadline(time.Now().Add(mailFor)); err != nil {
		return err
	}
	if o.TLS == "tls" {
		conn = tls.Client(conn, conf)
	}
	c, err := smtp.NewClient(conn, host)
	if err != nil {
		return err
	}
	if o.TLS == "" || o.TLS == "starttls" {
		if ok, _ := c.Extension("STARTTLS"); !ok {
			return fmt.Errorf("%s offers no STARTTLS, and nothing is sent in the clear", host)
		}
		if err := c.StartTLS(conf); err != nil {
			return err
		}
	}
	if o.User != "" {
		password, err := b.o.Secret(o.Password)
		if err != nil {
			return err
		}
		// PlainAuth itself refuses without TLS, but for this machine.
		if err := c.Auth(smtp.PlainAuth("", o.User, password, host)); err != nil {
			return err
		}
	}
	from, err := mail.ParseAddress(o.From)
	if err != nil {
		return err
	}
	if err := c.Mail(from.Address); err != nil {
		return err
	}
	if err := c.Rcpt(to); err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write(text); err != nil {
		return err
	}
	over = true
	if err := w.Close(); err != nil {
		return err
	}
	_ = c.Quit() // it has the message
	return nil
}

// mailText is the message as RFC 5322 has it. What is put into a header is encoded or an address that was parsed, so none of it can
// begin another one.
func mailText(m message, sender string) (text []byte, to string, err error) {
	rcpt, err := mail.ParseAddress(m.Target.To)
	if err != nil {
		return nil, "", fmt.Errorf("%q is no address", m.Target.To)
	}
	from, err := mail.ParseAddress(sender)
	if err != nil {
		return nil, "", fmt.Errorf("%q is no address", sender)
	}
	c := m.Change
	_, domain, _ := strings.Cut(from.Address, "@")
	var b bytes.Buffer
	for _, h := range [][2]string{
		{"From", from.String()}, {"To", rcpt.String()}, {"Subject", mime.QEncoding.Encode("utf-8", oneLine(Subject(c)))},
		{"Date", m.Made.Format(time.RFC1123Z)}, {"Message-ID", "<" + m.ID + "@" + domain + ">"},
		{"Auto-Submitted", "auto-generated"}, {"MIME-Version", "1.0"}, {"Content-Type", "text/plain; charset=utf-8"}, {"Content-Transfer-Encoding", "quoted-printable"},
	} {
		b.WriteString(h[0] + ": " + h[1] + "\r\n")
	}
	b.WriteString("\r\n")
	q := quotedprintable.NewWriter(&b)
	fmt.Fprintf(q, "%s\n\n", Subject(c))
	for _, m := range c.Methods {
		fmt.Fprintf(q, "  %s\n", oneLine(m))
	}
	fmt.Fprintf(q, "\nBy: %s <%s>\nRule: %s\nEphemeral environments: the %s copy\n", oneLine(c.Author.Name), oneLine(c.Author.Email), oneLine(c.Why), oneLine(c.Environments))
	for _, l := range [][2]string{{"Review", c.Review}, {"Details", c.Link}, {"Commit", c.Revision}} {
		if l[1] != "" {
			fmt.Fprintf(q, "%s: %s\n", l[0], oneLine(l[1]))
		}
	}
	if c.Reason != "" {
		fmt.Fprintf(q, "\n%s\n", c.Reason)
	}
	if err := q.Close(); err != nil {
		return nil, "", err
	}
	return b.Bytes(), rcpt.Address, nil
}

// oneLine keeps a text on its line.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// MailPassword is the name of the secret that a mail server's login has.
const MailPassword = "mail-password"

// MailFromEnvironment is the server that the environment names, or none:
//
//	FAIRLEAD_MAIL_SERVER  host:port
//	FAIRLEAD_MAIL_FROM    the sender
//	FAIRLEAD_MAIL_USER    for a login; its password is the secret mail-password
//	FAIRLEAD_MAIL_TLS     starttls (also without it), tls or none
//	FAIRLEAD_MAIL_ROOTS   a file of PEM, for a server whose certificate no public authority signed
func MailFromEnvironment(getenv func(string) string) Mail {
	return Mail{Address: getenv("FAIRLEAD_MAIL_SERVER"), From: getenv("FAIRLEAD_MAIL_FROM"), User: getenv("FAIRLEAD_MAIL_USER"), Password: MailPassword,
		TLS: getenv("FAIRLEAD_MAIL_TLS"), Roots: getenv("FAIRLEAD_MAIL_ROOTS")}
}
