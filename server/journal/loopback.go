package journal

import (
	"crypto/subtle"
	"errors"
	"net"
	"net/http"
	"strings"
)

// bearerProtocol carries the token where headers cannot be set: browsers let a page choose subprotocols only.
const bearerProtocol = "fairlead.bearer."

// Loopback serves journals on a TCP loopback listener: GET /v1/services/NAME/journal, to those who have the token.
// lookup finds the journal of a service, nil if there is none. An empty token lets nobody in.
func Loopback(token string, lookup func(service string) *Journal) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/services/{name}/journal", func(w http.ResponseWriter, r *http.Request) {
		j := lookup(r.PathValue("name"))
		if j == nil {
			http.Error(w, "no service of that name is under edit", http.StatusNotFound)
			return
		}
		Serve(w, r, j)
	})
	return Guard(token, mux)
}

// Guard lets a request through to next if its Host, its Origin and its token are right; see the package comment. The
// port that Host and Origin must name is that of the connection the request came on.
func Guard(token string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		port := ""
		if a, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
			_, port, _ = net.SplitHostPort(a.String())
		}
		if status, err := check(r.Host, r.Header, port, token); err != nil {
			if status == http.StatusUnauthorized {
				w.Header().Set("WWW-Authenticate", "Bearer")
			}
			http.Error(w, err.Error(), status)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// check says why a request is refused.
func check(host string, h http.Header, port, token string) (int, error) {
	if port == "" || host != "127.0.0.1:"+port && host != "localhost:"+port {
		return http.StatusForbidden, errors.New("the Host header must be this machine's loopback address and the agent's port")
	}
	switch origin := h["Origin"]; {
	case len(origin) == 0:
	case len(origin) > 1 || origin[0] != "http://"+host:
		return http.StatusForbidden, errors.New("web pages of another origin may not read journals")
	}
	got, err := bearer(h)
	if err != nil {
		return http.StatusBadRequest, err
	}
	if token == "" || subtle.ConstantTimeCompare([]byte(got), []byte(token)) != 1 {
		return http.StatusUnauthorized, errors.New("the token is missing or wrong; ask the agent for it anew: it has another one after every start")
	}
	return 0, nil
}

// bearer finds the token of a request: in the Authorization header, or else among the subprotocols.
func bearer(h http.Header) (string, error) {
	if a := h["Authorization"]; len(a) > 0 {
		// No token at all is a wrong one; net/http cuts the blank after "Bearer" off then.
		scheme, token, _ := strings.Cut(a[0], " ")
		if len(a) > 1 || !strings.EqualFold(scheme, "Bearer") {
			return "", errors.New(`the Authorization header must be "Bearer TOKEN"`)
		}
		return token, nil
	}
	token, asked := "", false
	for _, v := range h["Sec-Websocket-Protocol"] {
		for p := range strings.SplitSeq(v, ",") {
			p = strings.TrimSpace(p)
			if t, ok := strings.CutPrefix(p, bearerProtocol); ok {
				if token != "" && token != t {
					return "", errors.New("there is more than one token among the subprotocols")
				}
				token = t
			}
			asked = asked || p == Protocol
		}
	}
	if token != "" && !asked {
		// A server must choose one of what is offered, and it must not be the token that comes back.
		return "", errors.New("offer the subprotocol " + Protocol + " beside the token")
	}
	return token, nil
}
