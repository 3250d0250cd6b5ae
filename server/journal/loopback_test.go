package journal

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
)

const token = "5f0c1e7ab3d94e60"

// loopback serves one journal, of the service shop.
func loopback(t *testing.T, j *Journal) (addr string) {
	t.Helper()
	srv := httptest.NewServer(Loopback(token, func(name string) *Journal {
		if name == "shop" {
			return j
		}
		return nil
	}))
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

func TestRefusals(t *testing.T) {
	j := New(Options{})
	j.Append(line(1))
	addr := loopback(t, j)
	_, port, _ := strings.Cut(addr, ":")
	const path = "/v1/services/shop/journal"
	for _, c := range []struct {
		name, path string
		host       string
		header     http.Header
		status     int
		says       string
	}{
		{"all is right", path, "", http.Header{"Authorization": {"Bearer " + token}}, 101, ""},
		{"the scheme in another case", path, "", http.Header{"Authorization": {"bearer " + token}}, 101, ""},
		{"by name", path, "localhost:" + port, http.Header{"Authorization": {"Bearer " + token}}, 101, ""},
		{"a page of our own", path, "", http.Header{"Authorization": {"Bearer " + token}, "Origin": {"http://" + addr}}, 101, ""},
		{"a page of our own by name", path, "localhost:" + port, http.Header{"Authorization": {"Bearer " + token}, "Origin": {"http://localhost:" + port}}, 101, ""},
		{"by subprotocol", path, "", http.Header{"Sec-Websocket-Protocol": {"fairlead.bearer." + token + ", fairlead.journal.v1"}}, 101, ""},
		{"by subprotocol, two headers", path, "", http.Header{"Sec-Websocket-Protocol": {"fairlead.journal.v1", "fairlead.bearer." + token}}, 101, ""},

		{"no token", path, "", nil, 401, "token"},
		{"another token", path, "", http.Header{"Authorization": {"Bearer 5f0c1e7ab3d94e61"}}, 401, "token"},
		{"half a token", path, "", http.Header{"Authorization": {"Bearer " + token[:8]}}, 401, "token"},
		{"an empty token", path, "", http.Header{"Authorization": {"Bearer "}}, 401, "token"},
		{"another scheme", path, "", http.Header{"Authorization": {"Basic " + token}}, 400, "Bearer TOKEN"},
		{"a token in the query", path + "?token=" + token, "", nil, 401, "token"},
		{"two headers", path, "", http.Header{"Authorization": {"Bearer " + token, "Bearer x"}}, 400, "Bearer TOKEN"},
		{"a wrong header beside a right subprotocol", path, "", http.Header{"Authorization": {"Bearer x"}, "Sec-Websocket-Protocol": {"fairlead.journal.v1, fairlead.bearer." + token}}, 401, "token"},
		{"the subprotocol of the token alone", path, "", http.Header{"Sec-Websocket-Protocol": {"fairlead.bearer." + token}}, 400, "fairlead.journal.v1"},
		{"two subprotocols of tokens", path, "", http.Header{"Sec-Websocket-Protocol": {"fairlead.journal.v1, fairlead.bearer.x, fairlead.bearer." + token}}, 400, "more than one"},

		{"a rebound name", path, "evil.example:" + port, http.Header{"Authorization": {"Bearer " + token}}, 403, "Host"},
		{"another port", path, "127.0.0.1:1", http.Header{"Authorization": {"Bearer " + token}}, 403, "Host"},
		{"no port", path, "127.0.0.1", http.Header{"Authorization": {"Bearer " + token}}, 403, "Host"},
		{"another loopback address", path, "127.0.0.2:" + port, http.Header{"Authorization": {"Bearer " + token}}, 403, "Host"},
		{"a page from elsewhere", path, "", http.Header{"Authorization": {"Bearer " + token}, "Origin": {"https://evil.example"}}, 403, "origin"},
		{"a page of another port", path, "", http.Header{"Authorization": {"Bearer " + token}, "Origin": {"http://127.0.0.1:1"}}, 403, "origin"},
		{"the other name's page", path, "", http.Header{"Authorization": {"Bearer " + token}, "Origin": {"http://localhost:" + port}}, 403, "origin"},
		{"a page over TLS", path, "", http.Header{"Authorization": {"Bearer " + token}, "Origin": {"https://" + addr}}, 403, "origin"},
		{"a sandboxed page", path, "", http.Header{"Authorization": {"Bearer " + token}, "Origin": {"null"}}, 403, "origin"},
		{"two origins", path, "", http.Header{"Authorization": {"Bearer " + token}, "Origin": {"http://" + addr, "http://evil.example"}}, 403, "origin"},

		{"no such service", "/v1/services/other/journal", "", http.Header{"Authorization": {"Bearer " + token}}, 404, "no service"},
		{"no such service, no token", "/v1/services/other/journal", "", nil, 401, "token"},
		{"another endpoint", "/v1/agent", "", http.Header{"Authorization": {"Bearer " + token}}, 404, ""},
		{"after is a word", path + "?after=x", "", http.Header{"Authorization": {"Bearer " + token}}, 400, "after"},
		{"after is negative", path + "?after=-1", "", http.Header{"Authorization": {"Bearer " + token}}, 400, "after"},
		{"after is too large", path + "?after=18446744073709551616", "", http.Header{"Authorization": {"Bearer " + token}}, 400, "after"},
		{"after twice", path + "?after=1&after=2", "", http.Header{"Authorization": {"Bearer " + token}}, 400, "more than once"},
		{"logs is a word", path + "?logs=yes", "", http.Header{"Authorization": {"Bearer " + token}}, 400, "logs"},
		{"a broken query", path + "?after=%zz", "", http.Header{"Authorization": {"Bearer " + token}}, 400, "well formed"},
		{"a huge query", path + "?x=" + strings.Repeat("y", 2000), "", http.Header{"Authorization": {"Bearer " + token}}, 400, "too long"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := c.header.Clone()
			if h == nil {
				h = http.Header{}
			}
			if c.host != "" {
				h.Set("Host", c.host)
			}
			ws, resp, err := websocket.DefaultDialer.Dial("ws://"+addr+c.path, h)
			if resp == nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			if resp.StatusCode != c.status || !strings.Contains(string(body), c.says) {
				t.Fatalf("%d %q, want %d %q", resp.StatusCode, body, c.status, c.says)
			}
			for k, v := range resp.Header {
				if strings.Contains(strings.Join(v, " "), token) || strings.Contains(string(body), token) {
					t.Errorf("the token comes back: %s %s", k, v)
				}
			}
			if err == nil {
				_, msg, err := ws.ReadMessage()
				ws.Close()
				if err != nil || !strings.Contains(string(msg), `"line 1"`) {
					t.Errorf("%s %v", msg, err)
				}
			}
		})
	}
}

// What is no websocket is told so; a server without a token lets nobody in.
func TestPlainRequests(t *testing.T) {
	addr := loopback(t, New(Options{}))
	req, _ := http.NewRequest("GET", "http://"+addr+"/v1/services/shop/journal", nil)
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusUpgradeRequired {
		t.Error(resp.Status)
	}
	req.Method = "POST"
	if resp, err = http.DefaultClient.Do(req); err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusMethodNotAllowed {
		t.Error(resp.Status)
	}
	if status, _ := check("127.0.0.1:80", http.Header{"Authorization": {"Bearer "}}, "80", ""); status != http.StatusUnauthorized {
		t.Errorf("an empty token: %d", status)
	}
	if status, _ := check("127.0.0.1:", http.Header{"Authorization": {"Bearer x"}}, "", "x"); status != http.StatusForbidden {
		t.Errorf("an unknown port: %d", status)
	}
}

func FuzzQuery(f *testing.F) {
	for _, s := range []string{"", "after=5", "after=5&logs=0&journal=ab", "after=%35", "after=;", "logs=1&logs=0", "a&b=c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		q, err := parseQuery(raw)
		if err == nil && len(q.journal) > maxQuery {
			t.Fatal("a long name")
		}
		if err != nil && strings.ContainsAny(err.Error(), "\r\n\x00") {
			t.Fatalf("%q", err)
		}
	})
}

// Nobody comes in without the token, the Host and the Origin, whatever the headers hold.
func FuzzHeaders(f *testing.F) {
	f.Add("127.0.0.1:80", "http://127.0.0.1:80", true, "Bearer "+token, true, "")
	f.Add("localhost:80", "", false, "", false, "fairlead.journal.v1, fairlead.bearer."+token)
	f.Add("evil:80", "null", true, "Basic x", true, "fairlead.bearer.")
	f.Fuzz(func(t *testing.T, host, origin string, hasOrigin bool, auth string, hasAuth bool, protocols string) {
		h := http.Header{"Sec-Websocket-Protocol": {protocols}}
		if hasOrigin {
			h["Origin"] = []string{origin}
		}
		if hasAuth {
			h["Authorization"] = []string{auth}
		}
		status, err := check(host, h, "80", token)
		if (err == nil) != (status == 0) {
			t.Fatal(status, err)
		}
		if err != nil {
			if strings.Contains(err.Error(), token) {
				t.Fatal("the token is told")
			}
			return
		}
		if host != "127.0.0.1:80" && host != "localhost:80" || hasOrigin && origin != "http://"+host {
			t.Fatalf("host %q origin %q", host, origin)
		}
		if hasAuth && !strings.HasSuffix(auth, " "+token) || !hasAuth && !strings.Contains(protocols, "fairlead.bearer."+token) {
			t.Fatalf("%q %q", auth, protocols)
		}
	})
}
