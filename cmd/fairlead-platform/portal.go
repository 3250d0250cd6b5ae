package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"fairlead.dev/api"
	"fairlead.dev/platform/endpoint"
	"fairlead.dev/platform/forge"
	"fairlead.dev/platform/notify"
	"fairlead.dev/platform/portal"
	"fairlead.dev/platform/registry"
)

type portalFlags struct {
	url, listen, cert, key, registry, branch, state  string
	issuer, client, clientSecret, readToken, secrets string
	trustEmail                                       bool
	sources, reflect                                 []string
}

func newPortal(stderr io.Writer) *cobra.Command {
	var o portalFlags
	c := &cobra.Command{
		Use:   "portal",
		Short: "Serve the team's portal: who may call what, and the form that asks for it",
		Long: `Portal serves the registry's pages to a team. Who somebody is, an OIDC provider says; what he may change, the
registry. It logs to stderr, as JSON, and ends with SIGTERM. docs/portal.md has a whole example.

Secrets are files, never flags: --oidc-client-secret-file, --read-token-file, those of teams' notifications
in --secrets (or FAIRLEAD_SECRET_NAME), the forge's token in FAIRLEAD_FORGE_TOKEN_FILE, with
its address in FAIRLEAD_FORGE_URL. E-mail goes by the server of FAIRLEAD_MAIL_SERVER.`,
		Example: `  fairlead-platform portal --url https://portal.example.com --listen :8443 --tls-cert tls.crt --tls-key tls.key \
    --registry https://git.example.com/shop/registry.git \
    --oidc-issuer https://id.example.com --oidc-client-id portal --oidc-client-secret-file oidc-secret`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return o.run(c.Context(), slog.New(slog.NewJSONHandler(stderr, nil)))
		},
	}
	f := c.Flags()
	f.StringVar(&o.url, "url", "", "`URL` by which browsers reach the portal (required)")
	f.StringVar(&o.listen, "listen", ":8080", "`ADDRESS` to listen on")
	f.StringVar(&o.cert, "tls-cert", "", "`file` with the certificate; without one, a proxy in front ends TLS")
	f.StringVar(&o.key, "tls-key", "", "`file` with its key")
	f.StringVar(&o.registry, "registry", "", "git `URL` of the registry (required)")
	f.StringVar(&o.branch, "branch", "", "`name` of the branch that is in force (default: the repository's own)")
	f.StringVar(&o.state, "state", "/var/lib/fairlead", "`folder` for the registry's clone and the messages that are not delivered yet")
	f.StringVar(&o.issuer, "oidc-issuer", "", "`URL` of the OIDC provider (required)")
	f.StringVar(&o.client, "oidc-client-id", "", "`ID` of the portal there (required)")
	f.StringVar(&o.clientSecret, "oidc-client-secret-file", "", "`file` with the client's secret; without one it is a public client")
	f.BoolVar(&o.trustEmail, "oidc-trust-email", false, "take addresses that the provider does not say are verified; only where nobody can enter another one's")
	f.StringVar(&o.readToken, "read-token-file", "", "`file` with a token that programs may read grants with")
	f.StringVar(&o.secrets, "secrets", "", "`folder` with the secrets that teams' notifications name, a file each")
	f.StringArrayVar(&o.sources, "source", nil, "`NAME=FOLDER`: a service's repository, for its .proto, descriptor and OpenAPI files; repeatable")
	f.StringArrayVar(&o.reflect, "reflect", nil, "`NAME=HOST:PORT`: where a service answers gRPC reflection without TLS; repeatable")
	return c
}

// pairs reads NAME=VALUE flags.
func pairs(flag string, values []string) (map[string]string, error) {
	m := map[string]string{}
	for _, v := range values {
		name, value, ok := strings.Cut(v, "=")
		if wrong, _ := registry.CheckName(name); !ok || wrong != "" || value == "" || m[name] != "" {
			return nil, usageError{fmt.Errorf("--%s: %q is no NAME=VALUE of a service, or its second", flag, v)}
		}
		m[name] = value
	}
	return m, nil
}

// secretFile reads a secret.
func secretFile(name string) (string, error) {
	if name == "" {
		return "", nil
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return "", &api.Problem{Code: "secret", Message: "read a secret: " + err.Error(), Hint: "name a file that is there and may be read"}
	}
	s := strings.TrimSpace(string(b))
	if s == "" || strings.ContainsAny(s, "\n\r") {
		return "", &api.Problem{Code: "secret", Message: name + " has no secret in it, or several lines", Hint: "write the secret on one line"}
	}
	return s, nil
}

func (o portalFlags) run(ctx context.Context, log *slog.Logger) error {
	for flag, v := range map[string]string{"url": o.url, "registry": o.registry, "oidc-issuer": o.issuer, "oidc-client-id": o.client} {
		if v == "" {
			return usageError{fmt.Errorf("--%s is missing", flag)}
		}
	}
	if (o.cert == "") != (o.key == "") {
		return usageError{errors.New("--tls-cert and --tls-key go together")}
	}
	folders, err := pairs("source", o.sources)
	if err != nil {
		return err
	}
	addresses, err := pairs("reflect", o.reflect)
	if err != nil {
		return err
	}
	var conf *tls.Config
	if o.cert != "" {
		// Read again at each handshake: who renews a certificate writes a file and starts nothing anew.
		if _, err := tls.LoadX509KeyPair(o.cert, o.key); err != nil {
			return &api.Problem{Code: "portal-tls", Message: "read the certificate: " + err.Error(), Hint: "give PEM files that belong together"}
		}
		conf = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			c, err := tls.LoadX509KeyPair(o.cert, o.key)
			if err != nil {
				log.Error("portal: read the certificate", "error", err)
			}
			return &c, err
		}}
	}
	clientSecret, err := secretFile(o.clientSecret)
	if err != nil {
		return err
	}
	readToken, err := secretFile(o.readToken)
	if err != nil {
		return err
	}
	state, err := filepath.Abs(o.state)
	if err != nil {
		return err
	}
	reviewer, err := forge.FromEnvironment(ctx, o.registry, os.Getenv)
	if err != nil {
		return err
	}
	reg, err := registry.Open(ctx, registry.Options{Dir: filepath.Join(state, "registry"), Remote: o.registry, Branch: o.branch, Reviewer: reviewer})
	if err != nil {
		return err
	}
	box, err := notify.New(notify.Options{Dir: filepath.Join(state, "outbox"), Secret: notify.Folder(o.secrets), Mail: notify.MailFromEnvironment(os.Getenv), Logger: log})
	if err != nil {
		return err
	}
	p, err := portal.New(portal.Options{URL: o.url, Registry: reg, ReadToken: readToken, Logger: log,
		OIDC:      &portal.OIDC{Issuer: o.issuer, ClientID: o.client, ClientSecret: clientSecret, TrustEmail: o.trustEmail},
		Endpoints: (&endpoint.Finder{Where: func(s string) endpoint.Place { return endpoint.Place{Folder: folders[s], Address: addresses[s]} }, Logger: log}).Of,
		Changed: func(_ context.Context, c portal.Change) error {
			return box.Tell(notify.Of(c.Request, c.Result, c.Link), notify.Targets(c.Teams...)...)
		}})
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", o.listen)
	if err != nil {
		return &api.Problem{Code: "portal-listen", Message: "listen: " + err.Error(), Hint: "give another --listen"}
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { box.Run(ctx) })
	log.Info("portal: serves", "version", version, "url", p.URL(), "address", ln.Addr().String(), "registry", reg.Where())
	return p.Serve(ctx, ln, conf)
}
