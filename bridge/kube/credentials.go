package kube

import (
	"net/http"
	"strings"
	"sync"

	"k8s.io/client-go/rest"
)

// credentials are a token that a kubeconfig has in itself. It expires while a session goes on, and whoever logs in again has a
// new one written there: client-go reads token files and asks plugins anew, but not this.
type credentials struct {
	load func() string // the token that the kubeconfig has by now; "" where it cannot be read

	mu    sync.Mutex
	token string // in place of the one that the client was made with; empty until that is refused
}

// renewed makes a client's later requests have the token of a kubeconfig that has changed, once the one that it began with
// is refused. Other kinds of credentials are client-go's to renew.
func renewed(cfg *rest.Config, load func() (*rest.Config, error)) {
	if cfg.BearerToken == "" || cfg.BearerTokenFile != "" || cfg.ExecProvider != nil || cfg.AuthProvider != nil {
		return
	}
	c := &credentials{load: func() string {
		now, err := load()
		if err != nil || now.Host != cfg.Host { // a token is for one API server
			return ""
		}
		return now.BearerToken
	}}
	cfg.Wrap(func(rt http.RoundTripper) http.RoundTripper { return &authorized{rt, c} })
}

// authorized is what requests go through. A refused one is not repeated here: its caller decides.
type authorized struct {
	next http.RoundTripper
	*credentials
}

const bearerPrefix = "Bearer "

func (a *authorized) RoundTrip(r *http.Request) (*http.Response, error) {
	a.mu.Lock()
	token := a.token
	a.mu.Unlock()
	if token != "" {
		r = r.Clone(r.Context())
		r.Header.Set("Authorization", bearerPrefix+token)
	}
	sent := strings.TrimPrefix(r.Header.Get("Authorization"), bearerPrefix)
	resp, err := a.next.RoundTrip(r)
	if err == nil && resp.StatusCode == http.StatusUnauthorized {
		if now := a.load(); now != "" && now != sent {
			a.mu.Lock()
			a.token = now
			a.mu.Unlock()
		}
	}
	return resp, err
}
