package callsite

import (
	"slices"
	"strings"
	"testing"

	"fairlead.dev/api"
)

// In these patterns {} is what is not known, and {s} what is not known and has no slash.
func parts(s string) value {
	var v value
	for s != "" {
		i := strings.IndexByte(s, '{')
		if i < 0 {
			return append(v, part{kind: partText, text: s})
		}
		if i > 0 {
			v = append(v, part{kind: partText, text: s[:i]})
		}
		j := strings.IndexByte(s, '}')
		switch s[i : j+1] {
		case "{s}":
			v = append(v, part{kind: partSegment})
		case "{}":
			v = append(v, part{kind: partAny})
		default:
			v = append(v, part{kind: partText, text: s[i : j+1]})
		}
		s = s[j+1:]
	}
	return v
}

func TestMatchPath(t *testing.T) {
	for _, test := range []struct {
		url, path string
		want      string // "no", "nothing speaks for it", "exact", "perhaps"
	}{
		{"http://billing/v1/charges", "v1 charges", "exact"},
		{"http://billing/v1/charges/", "v1 charges", "exact"},
		{"http://billing/v1/charges?x=/y", "v1 charges", "exact"},
		{"http://billing/v1/charges", "v1 refunds", "no"},
		{"http://billing/v1/charges", "v1 charges *", "no"},
		{"{}/v1/charges/{}", "v1 charges *", "exact"},
		{"{}/v1/charges/{}", "v1 charges seven", "perhaps"},
		{"{}/v1/charges{}", "v1 charges", "exact"},
		{"{}/v1/charges{}", "v1 charges * note", "perhaps"},
		{"{}/charges", "v1 charges", "exact"},
		{"{}charges", "v1 charges", "exact"},
		{"http://{}/v1/charges", "v1 charges", "exact"},
		{"/v1/charges/{s}/note", "v1 charges * note", "exact"},
		{"/v1/charges/{s}/note", "v1 charges * other", "no"},
		{"/v1/charges/{id}", "v1 charges *", "exact"},
		{"/v1/charges/c-{s}", "v1 charges c-7", "perhaps"},
		{"/v1/charges/c-{s}", "v1 charges d-7", "no"},
		{"/v1/charges/7", "v1 charges *", "exact"},
		{"/v1/charges/mine", "v1 charges *", "no"},
		{"/v1/a%20b", "v1 a%20b", "exact"},
		{"{}{}", "v1 charges", "nothing speaks for it"},
		{"{}", "v1 charges", "nothing speaks for it"},
		{"http://billing", "", "exact"},
		{"http://billing/", "", "exact"},
		{"http://billing/x", "", "no"},
	} {
		path := strings.Fields(test.path)
		p := patternOf(parts(test.url))
		f, ok := matchPath(p, path)
		got := "no"
		switch {
		case !ok:
		case !f.says(p, path):
			got = "nothing speaks for it"
		case f.loose+f.extra > 0:
			got = "perhaps"
		default:
			got = "exact"
		}
		if got != test.want {
			t.Errorf("%s for %q: %s (%+v), want %s", test.url, test.path, got, f, test.want)
		}
	}
}

func TestHost(t *testing.T) {
	q := Query{Call: api.Call{Callee: "billing-api"}, Addresses: []string{"pay.shop.svc:8080", "127.0.0.1:41000"}}
	for host, want := range map[string]hostVerdict{
		"billing-api": hostCallee, "billing-api.shop.svc.cluster.local:8080": hostCallee, "pay.shop.svc": hostCallee, "127.0.0.1:41000": hostCallee,
		"127.0.0.1:8080": hostUnknown, "localhost:1": hostUnknown, "": hostUnknown, "stock:8080": hostOther,
	} {
		if got := q.host(host); got != want {
			t.Errorf("%q: %v, want %v", host, got, want)
		}
	}
	for name, want := range map[string]bool{"BILLING_API_URL": true, "billingAddr": true, "STOCK_URL": false, "url": false} {
		if got := q.names(name); got != want {
			t.Errorf("%q: %v, want %v", name, got, want)
		}
	}
}

func TestRuntimeName(t *testing.T) {
	for _, test := range []struct{ key, path, name, want string }{
		{"(*example.com/a/pay.Shop).Two", "example.com/a/pay", "pay", "example.com/a/pay.(*Shop).Two"},
		{"(example.com/a/pay.Shop).Two", "example.com/a/pay", "pay", "example.com/a/pay.Shop.Two"},
		{"(*example.com/a/pay.Shop[T]).Two·3:4", "example.com/a/pay", "pay", "example.com/a/pay.(*Shop[...]).Two"},
		{"example.com/a/cmd/x.run", "example.com/a/cmd/x", "main", "main.run"},
		{"gopkg.in/yaml.v3.Load", "gopkg.in/yaml.v3", "yaml", "gopkg.in/yaml%2ev3.Load"},
	} {
		if got := runtimeName(test.key, test.path, test.name); got != test.want {
			t.Errorf("%s: %s, want %s", test.key, got, test.want)
		}
	}
}

func FuzzPattern(f *testing.F) {
	f.Add("http://{}/v1/{s}?{}", "v1 *")
	f.Add("{}/\x01//{", "a")
	f.Fuzz(func(t *testing.T, url, path string) {
		p := patternOf(value{{kind: partText, text: url}, {kind: partAny}, {kind: partText, text: path}})
		segs := strings.Fields(path)
		if fit, ok := matchPath(p, segs); ok && (fit.base+fit.extra+len(p.segs) != len(segs)) {
			t.Errorf("%q of %q: %+v", url, path, fit)
		}
		matchPath(patternOf(value{{kind: partText, text: url}}), segs)
	})
}

func TestWords(t *testing.T) {
	p := &pkg{words: slices.Sorted(slices.Values(scanWords([]byte("a.\n\tCharge(größe, x . Y)"))))}
	for word, want := range map[string]bool{"a": true, "Charge": true, ".Charge": true, "größe": true, ".Y": true, ".a": false, ".x": false, "Char": false} {
		if got := p.mentions(word); got != want {
			t.Errorf("%q: %v, want %v", word, got, want)
		}
	}
}
