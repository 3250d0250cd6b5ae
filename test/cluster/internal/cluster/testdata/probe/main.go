// Command probe is what the tests run in pods: a server that says who it is
// and looks at the cluster from inside, and a program for exec.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "upper" {
		// For exec: standard input in capitals, and a status of its own.
		b, _ := io.ReadAll(io.LimitReader(os.Stdin, int64(len("hello"))))
		fmt.Print(strings.ToUpper(string(b)))
		fmt.Fprint(os.Stderr, "done")
		os.Exit(7)
	}
	http.HandleFunc("/name", func(w http.ResponseWriter, _ *http.Request) {
		host, _ := os.Hostname()
		fmt.Fprint(w, host)
	})
	http.HandleFunc("/get", func(w http.ResponseWriter, r *http.Request) {
		answer(w)(fetch(r.Context(), r.FormValue("url")))
	})
	http.HandleFunc("/lookup", func(w http.ResponseWriter, r *http.Request) {
		addrs, err := net.DefaultResolver.LookupHost(r.Context(), r.FormValue("name"))
		answer(w)(strings.Join(addrs, " "), err)
	})
	fmt.Println("probe: listening")
	fmt.Println(http.ListenAndServe(":8080", nil))
	os.Exit(1)
}

func answer(w http.ResponseWriter) func(string, error) {
	return func(s string, err error) {
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			s = err.Error()
		}
		fmt.Fprint(w, s)
	}
}

// fetch gets a page; from the API server with the pod's own token.
func fetch(ctx context.Context, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	transport := &http.Transport{DisableKeepAlives: true}
	if req.URL.Scheme == "https" {
		const secrets = "/var/run/secrets/kubernetes.io/serviceaccount/"
		token, err := os.ReadFile(secrets + "token")
		if err != nil {
			return "", err
		}
		req.Header.Set("Authorization", "Bearer "+string(token))
		ca, err := os.ReadFile(secrets + "ca.crt")
		if err != nil {
			return "", err
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(ca)
		transport.TLSClientConfig = &tls.Config{RootCAs: roots}
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return fmt.Sprintf("%d %s", resp.StatusCode, b), err
}
