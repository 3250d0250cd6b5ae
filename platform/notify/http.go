package notify

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// newClient is what sends where a team's file says. Addresses of the link are refused: a cloud's metadata are at one, and nobody's
// receiver.
func newClient() *http.Client {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DialContext = (&net.Dialer{Timeout: 10 * time.Second, Control: func(_, address string, _ syscall.RawConn) error {
		if a, err := netip.ParseAddrPort(address); err != nil || a.Addr().Unmap().IsLinkLocalUnicast() {
			return fmt.Errorf("%s is no place for messages", address)
		}
		return nil
	}}).DialContext
	return &http.Client{Transport: t, Timeout: 15 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// post sends a body. Where no connection was had, nobody has it; what is answered decides otherwise.
func (b *Box) post(ctx context.Context, to string, body []byte, header map[string]string) error {
	u, err := url.Parse(to)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return &notTaken{errors.New("the address is no http(s) URL"), true} // it may be the secret: it is not repeated
	}
	var connected atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected.Store(true) }})
	r, err := http.NewRequestWithContext(ctx, "POST", to, bytes.NewReader(body))
	if err != nil {
		return &notTaken{errors.New("the address is no http(s) URL"), true}
	}
	r.GetBody = nil // the client must not send it a second time by itself
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "fairlead")
	for k, v := range header {
		r.Header.Set(k, v)
	}
	res, err := b.o.Client.Do(r)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err // url.Error has the address in it
		}
		err = fmt.Errorf("%s: %w", u.Hostname(), err)
		if !connected.Load() {
			return &notTaken{err: err}
		}
		return err
	}
	defer res.Body.Close()
	answer, _ := io.ReadAll(io.LimitReader(res.Body, 200)) // for the log only
	switch s := res.StatusCode; {
	case s >= 200 && s < 300:
		return nil
	case s == http.StatusRequestTimeout, s == http.StatusTooEarly, s == http.StatusTooManyRequests, s >= 500:
		return &notTaken{err: fmt.Errorf("%s answered %s: %q", u.Hostname(), res.Status, answer)}
	default:
		return &notTaken{fmt.Errorf("%s answered %s: %q", u.Hostname(), res.Status, answer), true}
	}
}

// webhook sends to a team's own receiver; see the package comment.
func (b *Box) webhook(ctx context.Context, m message) error {
	body, err := json.Marshal(m.Change)
	if err != nil {
		return &notTaken{err, true}
	}
	header := map[string]string{"Fairlead-Id": m.ID, "Fairlead-Timestamp": strconv.FormatInt(b.now().Unix(), 10)}
	if m.Target.Secret != "" {
		secret, err := b.o.Secret(m.Target.Secret)
		if err != nil {
			return &notTaken{err: err}
		}
		header["Fairlead-Signature"] = Sign(secret, m.ID, header["Fairlead-Timestamp"], body)
	}
	return b.post(ctx, m.Target.To, body, header)
}

// Sign is the signature of a webhook's message.
func Sign(secret, id, timestamp string, body []byte) string {
	h := hmac.New(sha256.New, []byte(secret))
	h.Write([]byte(id + "." + timestamp + "."))
	h.Write(body)
	return "v1=" + hex.EncodeToString(h.Sum(nil))
}

// Slack's limits: text in a section has at most 3,000 characters, in a header 150.
const (
	slackText   = 2900
	slackHeader = 150
	maxShown    = 20 // methods
)

// slack sends to an incoming webhook.
func (b *Box) slack(ctx context.Context, m message) error {
	to, err := b.o.Secret(m.Target.To)
	if err != nil {
		return &notTaken{err: err} // it may be put there yet
	}
	body, err := json.Marshal(slackMessage(m.Change))
	if err != nil {
		return &notTaken{err, true}
	}
	return b.post(ctx, strings.TrimSpace(to), body, nil)
}

type slackBlock struct {
	Type     string       `json:"type"`
	Text     *slackObject `json:"text,omitempty"`
	Elements any          `json:"elements,omitempty"`
}

type slackObject struct {
	Type string `json:"type"`
	Text string `json:"text"`
}

type slackButton struct {
	Type string      `json:"type"`
	Text slackObject `json:"text"`
	URL  string      `json:"url"`
}

type slackBody struct {
	Text   string       `json:"text"` // what a notification shows, and a screen reader reads
	Blocks []slackBlock `json:"blocks"`
}

var slackEscaper = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

// slackEscape keeps a text from being a mention, a link or a format: in mrkdwn the three characters are written so, and the zero
// width space keeps * _ ~ ` from being marks.
func slackEscape(s string) string {
	s = slackEscaper.Replace(s)
	for _, c := range []string{"*", "_", "~", "`"} {
		s = strings.ReplaceAll(s, c, c+"\u200b")
	}
	return s
}

// slackCode is a text in a code span, which no mark has a meaning in, and no backtick can be.
func slackCode(s string) string {
	return "`" + slackEscaper.Replace(strings.NewReplacer("`", "'", "\n", " ").Replace(s)) + "`"
}

func slackMessage(c Change) slackBody {
	var text strings.Builder
	verb := "may call"
	if c.Kind == "review" {
		verb = "asks to call"
	}
	fmt.Fprintf(&text, "%s %s these methods of %s:\n", slackCode(c.Caller), verb, slackCode(c.Callee))
	for i, m := range c.Methods {
		if i == maxShown {
			fmt.Fprintf(&text, "... and %d more\n", len(c.Methods)-maxShown)
			break
		}
		text.WriteString("\u2022 " + slackCode(m) + "\n")
	}
	if c.Reason != "" {
		text.WriteString("\n>" + strings.ReplaceAll(slackEscape(clip(c.Reason, 500)), "\n", "\n>") + "\n")
	}
	head := clip(Subject(c), slackHeader)
	who := fmt.Sprintf("%s · %s · environments: %s copy", slackEscape(clip(c.Author.Name, 100)), slackEscape(clip(c.Why, 300)), slackEscape(c.Environments))
	blocks := []slackBlock{
		{Type: "header", Text: &slackObject{"plain_text", head}},
		{Type: "section", Text: &slackObject{"mrkdwn", clip(text.String(), slackText)}},
		{Type: "context", Elements: []slackObject{{"mrkdwn", who}}},
	}
	var buttons []slackButton
	for _, b := range []struct{ name, url string }{{"Review", c.Review}, {"Details", c.Link}} {
		if strings.HasPrefix(b.url, "https://") || strings.HasPrefix(b.url, "http://") {
			buttons = append(buttons, slackButton{"button", slackObject{"plain_text", b.name}, b.url})
		}
	}
	if len(buttons) > 0 {
		blocks = append(blocks, slackBlock{Type: "actions", Elements: buttons})
	}
	return slackBody{Text: slackEscape(head), Blocks: blocks}
}

// Subject is a change in one line.
func Subject(c Change) string {
	if c.Kind == "review" {
		return fmt.Sprintf("%s asks to call %s", c.Caller, c.Callee)
	}
	return fmt.Sprintf("%s may call %s", c.Caller, c.Callee)
}

// clip shortens a text to a number of characters.
func clip(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n-3]) + "..."
	}
	return s
}
