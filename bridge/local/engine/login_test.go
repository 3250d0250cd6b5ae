package engine

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFind(t *testing.T) {
	for _, c := range []struct {
		name string
		env  []string
		args []string
		want Use
	}{
		{"url", []string{"A=1", "DATABASE_URL=postgres://shop:se%2Fcret@{{db}}/orders?sslmode=disable"}, nil, Use{PostgreSQL, []Login{{"shop", "se/cret", "orders"}}, "DATABASE_URL"}},
		{"url with parts", []string{"U=postgresql://shop@{{ db.host }}:{{db.port}}/orders?password=x&dbname=y"}, nil, Use{PostgreSQL, []Login{{"shop", "x", "y"}}, "U"}},
		{"two logins, each once", []string{"A=pgx://a:1@{{db}}/d", "B=pgx://b:2@{{db}}/d", "C=pgx://a:1@{{db}}/d"}, nil, Use{PostgreSQL, []Login{{"a", "1", "d"}, {"b", "2", "d"}}, "A"}},
		{"keywords", []string{`DSN=host={{db.host}} port = {{db.port}} user=shop password='it\'s a \\ secret' dbname=o`}, nil, Use{PostgreSQL, []Login{{"shop", `it's a \ secret`, "o"}}, "DSN"}},
		{"go-sql-driver", []string{"DSN=shop:p@ss:w@tcp({{db}})/orders?parseTime=true"}, nil, Use{MySQL, []Login{{"shop", "p@ss:w", "orders"}}, "DSN"}},
		{"go-sql-driver with parts", nil, []string{"-dsn=shop:x@tcp({{db.host}}:{{db.port}})/o"}, Use{MySQL, []Login{{"shop", "x", "o"}}, "argument dsn"}},
		{"redis", []string{"R=redis://:pw@{{db}}/3"}, nil, Use{Redis, []Login{{"", "pw", ""}}, "R"}},
		{"redis without a password", []string{"R=redis://{{db}}"}, nil, Use{Kind: Redis, Where: "R"}},
		{"an address only", []string{"ADDR={{db}}", "URL=http://{{db}}/x"}, nil, Use{}},
		{"another dependency", []string{"D=postgres://a:b@{{db2}}/d", "E=postgres://a:b@elsewhere/d?x={{db}}", "F=a:b@tcp(elsewhere)/d?x={{db}}"}, nil, Use{}},
		{"two engines: the first", []string{"A=redis://{{db}}", "B=postgres://a:b@{{db}}/d"}, nil, Use{Kind: Redis, Where: "A"}},
		{"with TLS", []string{"A=rediss://{{db}}"}, nil, Use{}},
		{"an open quote", []string{"A=host={{db.host}} password='x"}, nil, Use{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if d := cmp.Diff(c.want, Find("db", c.env, c.args)); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

// Whatever is in a variable, it is read or left alone; what is said of it never has a value in it.
func FuzzFind(f *testing.F) {
	for _, s := range []string{"postgres://a:b@{{db}}/c", "a:b@tcp({{db}})/c", "host={{db.host}} password='a b'", "redis://{{db}}", "{{db}}://", "'=\\"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u := Find("db", []string{"V=" + s}, nil)
		if (u.Kind == "") != (u.Where == "") || u.Kind == "" && len(u.Logins) > 0 || u.Kind != "" && (u.Where != "V" || Title(u.Kind) == "") {
			t.Errorf("%q: %+v", s, u)
		}
	})
}

func TestWrongLogins(t *testing.T) {
	for _, c := range []struct {
		kind string
		l    Login
		want string
	}{
		{PostgreSQL, Login{"a", "b", "c"}, ""},
		{PostgreSQL, Login{"", "", ""}, "as whom"},
		{PostgreSQL, Login{"a", "", "c"}, "role a has no password"},
		{PostgreSQL, Login{"fairlead", "b", "c"}, "Fairlead's own"},
		{PostgreSQL, Login{"a", "b\x00", "c"}, "is not text"},
		{PostgreSQL, Login{strings.Repeat("a", 64), "b", "c"}, "63 bytes"},
		{MySQL, Login{"a", "b", ""}, "names the database"},
		{Redis, Login{}, ""},
		{Redis, Login{Password: "p"}, ""},
		{Redis, Login{User: "a"}, "user a has no password"},
	} {
		if got, hint := c.l.wrong(c.kind); (got == "") != (c.want == "") || !strings.Contains(got, c.want) || (got == "") != (hint == "") {
			t.Errorf("%s %+v: %q, %q; want %q", c.kind, c.l, got, hint, c.want)
		}
	}
}
