package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fairlead.dev/test/freeport"
)

func TestPortalUsage(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ok := []string{"portal", "--url", "https://portal.example.com", "--registry", dir, "--oidc-issuer", "https://id.example.com", "--oidc-client-id", "portal", "--state", filepath.Join(dir, "state")}
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"portal"}, 2, "is missing"},
		{append(ok[:len(ok):len(ok)], "--tls-cert", "a"), 2, "--tls-cert and --tls-key go together"},
		{append(ok[:len(ok):len(ok)], "--source", "billing"), 2, `--source: "billing" is no NAME=VALUE`},
		{append(ok[:len(ok):len(ok)], "--reflect", "A/B=1:2"), 2, "is no NAME=VALUE"},
		{append(ok[:len(ok):len(ok)], "--oidc-client-secret-file", empty), 1, "has no secret in it"},
		{append(ok[:len(ok):len(ok)], "--read-token-file", dir+"/none"), 1, "hint: name a file that is there"},
		{append(ok[:len(ok):len(ok)], "--tls-cert", empty, "--tls-key", empty), 1, "hint: give PEM files that belong together"},
		{append(ok[:len(ok):len(ok)], "--url", "http://portal.example.com"), 1, "needs https"},
		{append(ok[:len(ok):len(ok)], "--oidc-issuer", "http://id.example.com"), 1, "is no OIDC issuer"},
	} {
		var out, errs bytes.Buffer
		if code := run(t.Context(), c.args, &out, &errs); code != c.code || !strings.Contains(errs.String(), c.says) {
			t.Errorf("%q: exit %d\n%s", c.args, code, errs.String())
		}
	}
}

// The portal serves by TLS, for its own host, and ends when it is told to.
func TestPortal(t *testing.T) {
	dir := t.TempDir()
	bare := filepath.Join(dir, "registry.git")
	if out, err := exec.Command("git", "init", "--quiet", "--bare", bare).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	// A certificate for example.com and 127.0.0.1.
	ts := httptest.NewUnstartedServer(nil)
	ts.StartTLS()
	defer ts.Close()
	pair := ts.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"tls.crt": {Type: "CERTIFICATE", Bytes: pair.Certificate[0]}, "tls.key": {Type: "PRIVATE KEY", Bytes: key}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "token"), []byte("read-it\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	addr := "127.0.0.1:" + freeport.Get(t)
	ctx, cancel := context.WithCancel(t.Context())
	var errs bytes.Buffer
	done := make(chan int, 1)
	go func() {
		done <- run(ctx, []string{"portal", "--url", "https://portal.example.com", "--listen", addr, "--tls-cert", dir + "/tls.crt", "--tls-key", dir + "/tls.key", "--registry", bare,
			"--state", dir + "/state", "--oidc-issuer", "https://id.example.com", "--oidc-client-id", "portal", "--read-token-file", dir + "/token"}, io.Discard, &errs)
	}()
	pool := x509.NewCertPool()
	pool.AddCert(ts.Certificate())
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: "example.com"}}, Timeout: time.Minute}
	get := func(host, path, token string) (int, string, error) {
		r, err := http.NewRequest("GET", "https://"+addr+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = host
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		res, err := client.Do(r)
		if err != nil {
			return 0, "", err
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		return res.StatusCode, string(b), err
	}
	end := time.After(time.Minute)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if status, body, err := get("anything", "/healthz", ""); err == nil && status == 200 && body == "ok\n" {
			break
		}
		select {
		case <-tick.C:
		case code := <-done:
			t.Fatalf("it ended with %d: %s", code, errs.String())
		case <-end:
			t.Fatal("it does not serve")
		}
	}
	for _, c := range []struct {
		host, path, token string
		status            int
		says              string
	}{
		{"portal.example.com", "/", "", 401, `href="./sign-in/start?to=%2F"`},
		{"other.example.com", "/", "", 421, "this is not the portal of other.example.com"},
		{"portal.example.com", "/v1/grants?caller=checkout", "read-it", 200, `"caller":"checkout","grants":[]`},
		{"portal.example.com", "/v1/grants?caller=checkout", "read-it-not", 401, `"code":"unauthorized"`},
	} {
		if status, body, err := get(c.host, c.path, c.token); err != nil || status != c.status || !strings.Contains(body, c.says) {
			t.Errorf("%s%s: %d %v\n%s", c.host, c.path, status, err, body)
		}
	}
	cancel()
	if code := <-done; code != 0 {
		t.Errorf("exit %d: %s", code, errs.String())
	}
	if log := errs.String(); strings.Contains(log, "read-it") {
		t.Errorf("the log has the token: %s", log)
	}
}
