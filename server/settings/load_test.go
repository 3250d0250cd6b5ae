package settings

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fairlead.dev/api"
	"github.com/google/go-cmp/cmp"
)

type apiProblem = api.Problem

// write puts files into a fresh folder, which is a repository: name, content, ... A content of "/" makes a folder, one
// of "-> TARGET" a link.
func write(t testing.TB, files ...string) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(files); i += 2 {
		name, content := filepath.Join(dir, filepath.FromSlash(files[i])), files[i+1]
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		target, link := strings.CutPrefix(content, "-> ")
		switch {
		case link:
			err = os.Symlink(filepath.FromSlash(target), name)
		case content == "/":
			err = os.MkdirAll(name, 0o755)
		default:
			err = os.WriteFile(name, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func load(t testing.TB, opts Options) *Loaded {
	t.Helper()
	l, problems := Load(opts)
	for _, p := range problems {
		t.Errorf("%v (%s)", p, p.Hint)
	}
	return l
}

func TestNoFile(t *testing.T) {
	dir := write(t, ".git/", "/", "svc/", "/")
	l := load(t, Options{Dir: filepath.Join(dir, "svc"), User: "-"})
	if d := cmp.Diff(Defaults(), l.Settings); d != "" {
		t.Errorf("settings (-want +got):\n%s", d)
	}
	if l.File != "" || l.User != "" || l.Root != dir || l.Origin("port") != "default" {
		t.Errorf("%+v", l)
	}
}

const full = `version: 1
name: shop
main: ./cmd/shop
args: [--port, 8080, --verbose, true, 2024-01-02]
env:
  A: 1
  B: "x=y"
  C: ""
  D: yes
dir: /app
port: 8080
grace: 1.5s
on: kubernetes
kubernetes:
  context: staging
  namespace: 7shop
  registry: localhost:5000/dev
  image: registry.example.com/static:nonroot
  template: shop.v2
  kubeconfig: ./kube/config
build:
  flags: [-race, "-ldflags=-X main.v=1"]
  tags: [a, b]
  env: {CGO_ENABLED: 1}
sync:
  - from: templates
    to: /app/templates
    ignore: ["*.psd", "!keep.psd"]
hosts: [Shop.test, 192.0.2.1, "::1"]
watch:
  ignore: [gen/]
  rest: 100ms
lease: {sleep: 90m, delete: never}
`

func TestFull(t *testing.T) {
	dir := write(t, ".git/", "/", "svc/fairlead.yaml", full, "svc/templates/", "/", "svc/cmd/shop/", "/")
	at := func(name string) string { return filepath.Join(dir, filepath.FromSlash(name)) }
	l := load(t, Options{Dir: at("svc/cmd/shop"), User: "-"})
	want := Settings{
		Name: "shop", Main: at("svc/cmd/shop"), Args: []string{"--port", "8080", "--verbose", "true", "2024-01-02"},
		Env: map[string]string{"A": "1", "B": "x=y", "C": "", "D": "yes"}, Dir: "/app", Port: 8080, Grace: 1500 * time.Millisecond, On: "kubernetes",
		Kubernetes: Kubernetes{Context: "staging", Namespace: "7shop", Isolation: "auto", Domain: "cluster.local", Registry: "localhost:5000/dev", Image: "registry.example.com/static:nonroot", Template: "shop.v2", Kubeconfig: at("svc/kube/config")},
		Build:      Build{Flags: []string{"-race", "-ldflags=-X main.v=1"}, Tags: []string{"a", "b"}, Env: map[string]string{"CGO_ENABLED": "1"}},
		Sync:       []Sync{{From: at("svc/templates"), To: "/app/templates", Ignore: []string{"*.psd", "!keep.psd"}}},
		Hosts:      []string{"shop.test", "192.0.2.1", "::1"},
		Watch:      Watch{Ignore: []string{"gen/"}, Rest: 100 * time.Millisecond},
		Lease:      Lease{Sleep: "90m", Delete: "never"},
		Calls:      Calls{Mode: "enforce"},
	}
	if d := cmp.Diff(want, l.Settings); d != "" {
		t.Errorf("settings (-want +got):\n%s", d)
	}
	if got, want := l.Origin("kubernetes.context"), at("svc/fairlead.yaml")+":15"; got != want {
		t.Errorf("origin %s, want %s", got, want)
	}
}

func TestPrecedence(t *testing.T) {
	dir := write(t, ".git/", "/",
		"fairlead.yaml", "version: 1\nport: 1\ngrace: 1s\nenv: {A: rep, B: rep}\nhosts: [rep]\nkubernetes: {context: rep, namespace: rep}\nservices:\n  orders:\n    main: ./orders\n    port: 2\n    env: {B: svc}\n  pay:\n    main: ./pay/cmd\n    name: payment\n  empty:\n",
		"orders/cmd/", "/", "pay/cmd/", "/",
		"user.yaml", "env: {C: user}\nhosts: [user]\nkubernetes: {context: user, kubeconfig: k}\n")
	user := filepath.Join(dir, "user.yaml")
	for _, tt := range []struct {
		name  string
		opts  Options
		want  string
		where string // origin of port
	}{
		{"repository", Options{User: "-"}, " rep rep rep 1 map[A:rep B:rep] [rep]", "fairlead.yaml:2"},
		{"user", Options{User: user}, " user rep rep 1 map[A:rep B:rep C:user] [user]", "fairlead.yaml:2"},
		{"service by name", Options{User: user, Service: "orders"}, "orders user rep svc 2 map[A:rep B:svc C:user] [user]", "fairlead.yaml:10"},
		{"service by folder", Options{User: "-", Dir: "orders/cmd"}, "orders rep rep svc 2 map[A:rep B:svc] [rep]", "fairlead.yaml:10"},
		{"service by folder above", Options{User: "-", Dir: "pay"}, "payment rep rep rep 1 map[A:rep B:rep] [rep]", "fairlead.yaml:2"},
		{"empty service", Options{User: "-", Service: "empty"}, "empty rep rep rep 1 map[A:rep B:rep] [rep]", "fairlead.yaml:2"},
		{"flags", Options{User: user, Service: "orders", Flags: []Flag{
			{"--port", "port", []string{"3"}}, {"--namespace", "kubernetes.namespace", []string{"flag"}}, {"--env", "env", []string{"A=flag=1", "D="}},
			{"--host", "hosts", []string{"flag"}},
		}}, "orders user flag svc 3 map[A:flag=1 B:svc C:user D:] [flag]", "--port"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.opts.Dir = filepath.Join(dir, filepath.FromSlash(tt.opts.Dir))
			l := load(t, tt.opts)
			got := fmt.Sprint(l.Name, " ", l.Kubernetes.Context, " ", l.Kubernetes.Namespace, " ", l.Env["B"], " ", l.Port, " ", l.Env, " ", l.Hosts)
			if got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			if o := strings.TrimPrefix(l.Origin("port"), dir+string(filepath.Separator)); o != tt.where {
				t.Errorf("origin %s, want %s", o, tt.where)
			}
			if d := cmp.Diff([]string{"empty", "orders", "pay"}, l.Services); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestWhereTheFileIs(t *testing.T) {
	for _, tt := range []struct {
		name  string
		files []string
		dir   string
		want  string
	}{
		{"nearest", []string{".git/", "/", "fairlead.yaml", "", "a/fairlead.yaml", "", "a/b/", "/"}, "a/b", "a/fairlead.yaml"},
		{"not above the repository", []string{"fairlead.yaml", "", "a/.git", "gitdir: x", "a/b/", "/"}, "a/b", ""},
		{"up to the outermost module", []string{"fairlead.yaml", "", "a/go.work", "", "a/fairlead.yaml", "", "a/b/go.mod", "", "a/b/c/", "/"}, "a/b/c", "a/fairlead.yaml"},
		{"not above the module", []string{"fairlead.yaml", "", "a/go.mod", ""}, "a", ""},
		{"without either, only here", []string{"fairlead.yaml", "", "a/", "/"}, "a", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := write(t, tt.files...)
			l := load(t, Options{Dir: filepath.Join(dir, filepath.FromSlash(tt.dir)), User: "-"})
			want := tt.want
			if want != "" {
				want = filepath.Join(dir, filepath.FromSlash(want))
			}
			if l.File != want {
				t.Errorf("%s, want %s", l.File, want)
			}
		})
	}
}

// TestProblems has one mistake, or several, a file. The wanted lines are "LINE:COLUMN CODE MESSAGE | HINT".
func TestProblems(t *testing.T) {
	for _, tt := range []struct {
		name, file string
		user       bool
		want       []string
	}{
		{"unknown keys, all of them", "nmae: x\nkubernetes:\n  namespaec: y\n  port: 1\ncontext: z\nwhatever: 1\n", false, []string{
			`1:1 settings-unknown-key nmae: unknown key | did you mean "name"?`,
			`3:3 settings-unknown-key kubernetes.namespaec: unknown key | did you mean "namespace"?`,
			`4:3 settings-unknown-key kubernetes.port: unknown key | it is a key of the top level`,
			`5:1 settings-unknown-key context: unknown key | it is a key of kubernetes`,
			`6:1 settings-unknown-key whatever: unknown key | the keys here are version, name, main, args, env, dir, port, grace, on, kubernetes, dependencies, build, sync, hosts, watch, lease, calls, registry, review, services`,
		}},
		{"types, all of them", "name: 5\nport: \"80\"\nargs: x\nenv: [A]\ngrace: 3\nkubernetes: x\nsync: {}\nhosts: [[a]]\nwatch: []\n", false, []string{
			"1:7 settings-type name: expected text, got the number 5 | write text; a number or true and false need quotes",
			`2:7 settings-type port: expected a whole number, got the text "80" | write a whole number`,
			`3:7 settings-type args: expected a list, got the text "x" | write a list`,
			"4:6 settings-type env: expected a map, got a list | write a map",
			"5:8 settings-type grace: expected a duration such as 500ms or 3s, got the number 3 | write a duration such as 500ms or 3s",
			`6:13 settings-type kubernetes: expected a map with the keys context, namespace, isolation, quota, egress, domain, registry, image, template, kubeconfig, got the text "x" | write a map with the keys context, namespace, isolation, quota, egress, domain, registry, image, template, kubeconfig`,
			"7:7 settings-type sync: expected a list, got a map | write a list",
			"8:9 settings-type hosts[0]: expected text, got a list | write text; a number or true and false need quotes",
			"9:8 settings-type watch: expected a map with the keys ignore, rest, got a list | write a map with the keys ignore, rest",
		}},
		{"dependencies", "dependencies:\n  postgres: fesh\n  redis: {seed: load}\n  a b: off\n  db: {mode: shared, seed: load}\n  x:\n  y: [fresh]\n", false, []string{
			`2:13 settings-value dependencies.postgres: "fesh" is none of shared, fresh, off | did you mean fresh?`,
			"3:10 settings-value dependencies.redis.seed: only a fresh dependency is filled by a Job | set mode: fresh, or remove seed",
			`4:3 settings-value dependencies.a b: "a b" is not a Service's name or a host | write it as fairlead deps shows it, such as postgres or rates.finance`,
			"5:7 settings-value dependencies.db.seed: only a fresh dependency is filled by a Job | set mode: fresh, or remove seed",
			"6:5 settings-type dependencies.x: expected a mode, got nothing | write a mode",
			"7:6 settings-type dependencies.y: expected a map with the keys mode, seed, main, run, engine, user, password, database, port, ready, env, got a list | write a map with the keys mode, seed, main, run, engine, user, password, database, port, ready, env",
		}},
		{"engines", "dependencies:\n  a: {engine: postgres}\n  b: {engine: redis, run: x}\n  c: {engine: mysql, password: p}\n  d: {seed: ../x.sql}\n  e: {seed: gone.sql}\n  f: {seed: a/b.txt}\n  g: {seed: /etc/passwd.sql}\n", false, []string{
			`2:15 settings-value dependencies.a.engine: "postgres" is none of postgresql, mysql, mariadb, redis | did you mean postgresql?`,
			"3:6 settings-value dependencies.b.engine: it is either an engine or what main or run say | remove engine, or the other",
			"4:6 settings-value dependencies.c.user: a password or a database is whose? | write user:",
			"5:13 settings-value dependencies.d.seed: there is no file UP/x.sql | make it, or correct the path: it is relative to ROOT",
			"6:13 settings-value dependencies.e.seed: there is no file ROOT/gone.sql | make it, or correct the path: it is relative to ROOT",
			`7:13 settings-value dependencies.f.seed: "a/b.txt" ends in none of .sql, .rdb, .redis | write the name of a Job, or a file ending in .sql, .rdb or .redis`,
			"8:13 settings-value dependencies.g.seed: /etc/passwd.sql is not relative to this file | write it relative to ROOT",
		}},
		{"not a map", "- a\n", false, []string{"1:1 settings-type the file: expected a map with the keys version, name, main, args, env, dir, port, grace, on, kubernetes, dependencies, build, sync, hosts, watch, lease, calls, registry, review, services, got a list | write a map with the keys version, name, main, args, env, dir, port, grace, on, kubernetes, dependencies, build, sync, hosts, watch, lease, calls, registry, review, services"}},
		{"values", "name: My_Service\nport: 70000\ngrace: -1s\non: Kubernets\ndir: app\nmain: -x\nhosts: [\"http://a\", \"a:80\", \"1.2.3.4:80\"]\nkubernetes: {registry: \"https://x\", image: \"https://y\", namespace: a.b, template: A, context: \"\"}\nbuild: {flags: [race], tags: [\"a b\"], env: {\"A=B\": 1, C: }}\nwatch: {ignore: [\"[a\", \"\"], rest: soon}\n", false, []string{
			`1:7 settings-value name: "My_Service" is not a DNS label | use at most 63 lower-case letters, digits and dashes, with a letter first and no dash last`,
			"2:7 settings-value port: 70000 is out of range | write a number from 1 to 65535",
			"3:8 settings-value grace: a duration is not negative | write 0s or more",
			`4:5 settings-value on: "Kubernets" is none of local, kubernetes | did you mean kubernetes?`,
			`5:6 settings-value dir: "app" is not an absolute path in the pod | begin it with / and leave out . and .. and double slashes`,
			`6:7 settings-value main: "-x" is not a folder or an import path | write it as ./cmd/orders or example.com/shop/cmd/orders`,
			`7:9 settings-value hosts[0]: "http://a" is not a host name or address | write the name alone, such as orders.test, without scheme, port or path`,
			`7:21 settings-value hosts[1]: "a:80" is not a host name or address | write the name alone, such as orders.test, without scheme, port or path`,
			`7:29 settings-value hosts[2]: "1.2.3.4:80" is not a host name or address | write the name alone, such as orders.test, without scheme, port or path`,
			`8:24 settings-value kubernetes.registry: "https://x" is not a registry | write the host with its path, such as registry.example.com/dev, without a scheme`,
			`8:44 settings-value kubernetes.image: "https://y" is not an image | write it as docker pull takes it, such as registry.example.com/static:nonroot, without a scheme`,
			`8:68 settings-value kubernetes.namespace: "a.b" is not a namespace | use at most 63 lower-case letters, digits and dashes, with no dash first or last`,
			`8:83 settings-value kubernetes.template: "A" is not a name in Kubernetes | use lower-case letters, digits, dashes and dots`,
			`8:95 settings-value kubernetes.context: "" is not text | write one line of text`,
			`9:17 settings-value build.flags[0]: "race" is not a flag of go build | write each flag with its value as one element, such as -ldflags=-X main.version=dev`,
			`9:31 settings-value build.tags[0]: "a b" is not a build tag | use letters, digits, underscores and dots`,
			`9:45 settings-value build.env.A=B: "A=B" is not a variable's name | a name has at least one character and no =`,
			"9:58 settings-type build.env.C: expected text, got nothing | write text; a number or true and false need quotes",
			`10:18 settings-value watch.ignore[0]: "[a" is not a pattern: a bracket is not closed | write it as in .gitignore, such as *.tmp or gen/`,
			`10:24 settings-value watch.ignore[1]: "" is not a pattern as in .gitignore | write it as in .gitignore, such as *.tmp or gen/`,
			`10:35 settings-type watch.rest: expected a duration such as 500ms or 3s, got the text "soon" | write a duration such as 500ms or 3s`,
		}},
		{"columns are bytes", "env: {\"äöü\": \"x\", \"ß€\": [] }\n", false, []string{
			"1:31 settings-type env.ß€: expected text, got a list | write text; a number or true and false need quotes",
		}},
		{"twice", "port: 1\nname: a\nport: 2\nenv:\n  A: 1\n  A: 2\n", false, []string{
			"3:1 settings-duplicate port is set twice, first on line 1 | keep one of them",
			"6:3 settings-duplicate env.A is set twice, first on line 5 | keep one of them",
		}},
		{"sync", "sync:\n- from: gone\n  to: /a\n- from: ../outside\n  to: /b\n- from: link\n  to: /c\n- from: /tmp\n  to: /d\n- from: file\n  to: /e\n- to: /f\n- from: in\n  to: rel\n- from: in\n  to: /proc/x\n- from: in\n  to: /etc\n- from: in\n  to: /a/../b\n- from: in\n  to: /\n- from: in\n  to: /a/\n- 5\n", false, []string{
			"2:9 settings-value sync[0].from: there is no folder ROOT/gone | make it, or correct the path: it is relative to ROOT",
			"4:9 settings-value sync[1].from: there is no folder UP/outside | make it, or correct the path: it is relative to ROOT",
			"6:9 settings-value sync[2].from: link leads to AWAY, outside of the repository ROOT | bring the files into the repository",
			"8:9 settings-value sync[3].from: /tmp is not relative to this file | write it relative to ROOT",
			"10:9 settings-value sync[4].from: file is not a folder | name the folder that the file is in",
			"12:3 settings-value sync[5].from is missing | add it, for example from: ./templates",
			`14:7 settings-value sync[6].to: "rel" is not an absolute path in the pod | begin it with / and leave out . and .. and double slashes`,
			"16:7 settings-value sync[7].to: /proc/x belongs to the system | choose a folder of the service, such as /app/files",
			"18:7 settings-value sync[8].to: /etc holds more than the service's files, and what is not in `from` would be deleted | choose a folder in it, such as /etc/files",
			`20:7 settings-value sync[9].to: "/a/../b" is not an absolute path in the pod in its shortest form | write /b`,
			`22:7 settings-value sync[10].to: "/" is not an absolute path in the pod | begin it with / and leave out . and .. and double slashes`,
			`24:7 settings-value sync[11].to: "/a/" is not an absolute path in the pod | begin it with / and leave out . and .. and double slashes`,
			"25:3 settings-type sync[12]: expected a map with the keys from, to, ignore, got the number 5 | write a map with the keys from, to, ignore",
		}},
		{"sync over each other", "sync:\n- {from: in, to: /a/b}\n- {from: in, to: /a}\n", false, []string{
			"2:0 settings-value sync: /a/b and /a in the pod overlap: what one does not have is deleted from the other | let each entry have a folder of its own",
		}},
		{"services", "services:\n  Orders: {}\n  a: {port: 0, verion: 1}\n  b: {services: {}}\n", false, []string{
			`2:3 settings-value services.Orders: "Orders" is not a DNS label | use at most 63 lower-case letters, digits and dashes, with a letter first and no dash last`,
			"3:13 settings-value services.a.port: 0 is out of range | write a number from 1 to 65535",
			"3:16 settings-unknown-key services.a.verion: unknown key | the keys here are name, main, args, env, dir, port, grace, on, kubernetes, dependencies, build, sync, hosts, watch, lease, calls, registry, review",
			"4:7 settings-unknown-key services.b.services: unknown key | it is a key of the top level",
		}},
		{"version", "version: 2\nnewkey: 1\n", false, []string{"1:10 settings-version version 2 is newer than this program, which reads version 1 | install a newer fairlead, or use version: 1"}},
		{"version 0", "version: 0\n", false, []string{"1:10 settings-value version: 0 is not 1 | write 1"}},
		{"syntax", "name: a\nenv:\n  A: [1\nport: 2\n", false, []string{"3:1 settings-syntax not valid YAML: did not find expected ',' or ']' | look at the indentation, quotes and brackets on this line and the one before"}},
		{"tab", "kubernetes:\n\tcontext: x\n", false, []string{"2:1 settings-syntax not valid YAML: found character that cannot start any token | look at the indentation, quotes and brackets on this line and the one before"}},
		{"two documents", "name: a\n---\nname: b\n", false, []string{"2:1 settings-syntax a second document begins here | a settings file is one document: remove the ---"}},
		{"merge key", "services:\n  a: &a {port: 1}\n  b: {<<: *a}\n", false, []string{"3:7 settings-unknown-key services.b.<<: unknown key | merge keys are not read: write the keys out, or use services"}},
		{"aliases are fine", "services:\n  a: &a {port: 1}\n  b: *a\n", false, nil},
		{"nothing after a key", "version: 1\nname:\nargs:\nenv:\nkubernetes:\nsync:\n", false, nil},
		{"empty", "", false, nil},
		{"comment", "# nothing\n", false, nil},
		{"repository's keys in the user's file", "name: a\nsync: []\nservices: {}\nport: 1\n", true, []string{
			"1:1 settings-place name is a setting of a repository, not of a user | set it in the repository's fairlead.yaml",
			"2:1 settings-place sync is a setting of a repository, not of a user | set it in the repository's fairlead.yaml",
			"3:1 settings-place services is a setting of a repository, not of a user | set it in the repository's fairlead.yaml",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			away := write(t)
			dir := write(t, ".git/", "/", "in/", "/", "file", "x", "link", "-> "+away)
			opts := Options{Dir: dir, User: "-"}
			name := filepath.Join(dir, FileName)
			if tt.user {
				name = filepath.Join(dir, "user.yaml")
				opts.User = name
			}
			if err := os.WriteFile(name, []byte(tt.file), 0o644); err != nil {
				t.Fatal(err)
			}
			l, problems := Load(opts)
			if l == nil {
				t.Fatal("nothing loaded")
			}
			var got []string
			for _, p := range problems {
				if p.File != name || p.Hint == "" || p.Severity != api.SeverityError {
					t.Errorf("incomplete: %+v", p)
				}
				s := fmt.Sprintf("%d:%d %s %s | %s", p.Line, p.Column, p.Code, p.Message, p.Hint)
				got = append(got, strings.NewReplacer(away, "AWAY", dir, "ROOT", filepath.Dir(dir), "UP").Replace(s))
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("problems (-want +got):\n%s", d)
			}
		})
	}
}

func TestWhatIsRightIsKept(t *testing.T) {
	dir := write(t, ".git/", "/", "in/", "/", FileName, "port: x\nname: ok\nenv: {A: 1, B: []}\nargs: [a, [], b]\nsync: [{from: in, to: /a}, {from: in}]\n")
	l, problems := Load(Options{Dir: dir, User: "-"})
	if len(problems) != 4 || l.Name != "ok" || l.Port != 0 || len(l.Sync) != 1 || fmt.Sprint(l.Env, l.Args) != "map[A:1] [a b]" {
		t.Errorf("%+v, %d problems", l.Settings, len(problems))
	}
}

func TestFlagProblems(t *testing.T) {
	dir := write(t, ".git/", "/")
	_, problems := Load(Options{Dir: dir, User: "-", Flags: []Flag{
		{"--port", "port", []string{"http"}}, {"--on", "on", []string{"cloud"}}, {"--env", "env", []string{"A"}}, {"--port", "port", []string{"0"}},
	}})
	var got []string
	for _, p := range problems {
		got = append(got, p.Error()+" | "+p.Hint)
	}
	want := []string{
		`--port: expected a whole number, got the text "http" | write a whole number`,
		`--on: "cloud" is none of local, kubernetes | write local or kubernetes`,
		`--env: "A" is no NAME=VALUE | write --env NAME=VALUE`,
		`--port: 0 is out of range | write a number from 1 to 65535`,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("problems (-want +got):\n%s", d)
	}
}

func TestFiles(t *testing.T) {
	dir := write(t, ".git/", "/", FileName+"/", "/")
	if _, problems := Load(Options{Dir: dir, User: "-"}); len(problems) != 1 || problems[0].Code != "settings-unreadable" {
		t.Errorf("a folder for a file: %v", problems)
	}
	dir = write(t, ".git/", "/", "fairlead.yml", "port: 1\n")
	if _, problems := Load(Options{Dir: dir, User: "-"}); len(problems) != 1 || problems[0].Severity != api.SeverityWarning {
		t.Errorf("fairlead.yml: %v", problems)
	}
	if _, problems := Load(Options{Dir: dir, User: filepath.Join(dir, "none.yaml")}); len(problems) != 2 {
		t.Errorf("a user's file that is named and not there: %v", problems)
	}
	if _, problems := Load(Options{Dir: filepath.Join(dir, "none"), User: "-"}); len(problems) != 1 {
		t.Errorf("no folder: %v", problems)
	}
	dir = write(t, ".git/", "/", FileName, "services: {orders: {}, pay: {}}\n")
	_, problems := Load(Options{Dir: dir, User: "-", Service: "order"})
	if len(problems) != 1 || problems[0].Hint != `did you mean "orders"?` {
		t.Errorf("a service that is not there: %v", problems)
	}
	// An editor's unsaved text.
	l, problems := Load(Options{Dir: dir, User: "-", ReadFile: func(string) ([]byte, error) { return []byte("port: 5\n"), nil }})
	if len(problems) != 0 || l.Port != 5 {
		t.Errorf("unsaved: %d, %v", l.Port, problems)
	}
}

func TestBombs(t *testing.T) {
	var billion strings.Builder
	billion.WriteString("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n")
	for i := range 9 {
		fmt.Fprintf(&billion, "a%d: &a%d [%s]\n", i+1, i+1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i), 10), ", "))
	}
	billion.WriteString("args: *a9\n")
	var wide strings.Builder
	wide.WriteString("env: &e\n")
	for i := range 20_000 {
		fmt.Fprintf(&wide, "  A%d: 1\n", i)
	}
	wide.WriteString("services:\n")
	for i := range 20_000 {
		fmt.Fprintf(&wide, "  s%d: {env: *e}\n", i)
	}
	for name, tt := range map[string]struct{ content, code string }{
		"billion laughs": {billion.String(), "settings-unknown-key"},
		"wide":           {wide.String(), "settings-too-large"},
		"large":          {strings.Repeat("# comment\n", 110_000), "settings-too-large"},
		"deep":           {"args: " + strings.Repeat("[", 100_000), "settings-syntax"},
		"itself":         {"services: &a {b: *a}\n", "settings-unknown-key"},
		"many mistakes":  {"args:\n" + strings.Repeat("- []\n", 60_000), "settings-type"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := write(t, ".git/", "/", FileName, tt.content)
			_, problems := Load(Options{Dir: dir, User: "-"})
			found := false
			for _, p := range problems {
				found = found || p.Code == tt.code
			}
			if !found || len(problems) > 200 {
				t.Errorf("%d problems, none is %s: %v", len(problems), tt.code, problems[:min(3, len(problems))])
			}
		})
	}
}

func FuzzLoad(f *testing.F) {
	f.Add(full)
	f.Add("services: &a {b: *a}\n")
	f.Add("a: !!binary x\nname: !custom y\n? [a]\n: b\n")
	f.Add("name: |\n  x\nport: 0x1f\nenv: {? a : b}\n---\n...\n%YAML 1.1\n")
	f.Add("\xef\xbb\xbfname: ä\r\nport: 1\r\n")
	dir, err := filepath.Abs(".")
	if err != nil {
		f.Fatal(err)
	}
	name := filepath.Join(dir, FileName)
	f.Fuzz(func(t *testing.T, content string) {
		l, problems := Load(Options{Dir: dir, User: "-", Service: "orders", ReadFile: func(n string) ([]byte, error) {
			if n == name {
				return []byte(content), nil
			}
			return nil, os.ErrNotExist
		}})
		lines := strings.Split(content, "\n")
		for _, p := range problems {
			if p.Message == "" || p.Hint == "" || p.File != name || p.Line < 1 || p.Line > len(lines)+1 || p.Column < 0 || p.Line <= len(lines) && p.Column > len(lines[p.Line-1])+1 {
				t.Errorf("%+v", p)
			}
		}
		if l.Port < 0 || l.Port > 65535 || l.Grace < 0 || l.On != "local" && l.On != "kubernetes" {
			t.Errorf("%+v", l.Settings)
		}
		for _, s := range l.Sync {
			if s.To == "" || s.From == "" || !filepath.IsAbs(s.From) {
				t.Errorf("%+v", s)
			}
		}
	})
}

func TestNearest(t *testing.T) {
	keys := []string{"name", "namespace", "main", "port", "on"}
	for in, want := range map[string]string{"nmae": "name", "Name": "name", "prot": "port", "namespac": "namespace", "no": "on", "x": "", "hosts": "", "mainn": "main", "o": "on"} {
		if got := nearest(in, keys); got != want {
			t.Errorf("nearest(%q) = %q, want %q", in, got, want)
		}
	}
}

// From the repository's root several services fit; the main package that is asked for says which.
func TestServiceOfMain(t *testing.T) {
	dir := write(t, ".git", "/", "cmd/orders-api/x.go", "", "cmd/pay/x.go", "",
		"fairlead.yaml", "services:\n  orders:\n    main: ./cmd/orders-api\n    port: 1\n  pay:\n    main: ./cmd/pay\n    port: 2\n")
	for main, want := range map[string]string{"": "", "./cmd/orders-api": "orders", "./cmd/pay": "pay", "./cmd": ""} {
		o := Options{Dir: dir, User: "-"}
		if main != "" {
			o.Flags = []Flag{{Name: "--main", Key: "main", Values: []string{main}}}
		}
		if l, _ := Load(o); l.Service != want {
			t.Errorf("%q: %q, want %q", main, l.Service, want)
		}
	}
}

// What a file's only entry says of its own main package is not said of another.
func TestServiceOfOtherMain(t *testing.T) {
	dir := write(t, ".git", "/", "checkout/x.go", "", "shipping/x.go", "", "checkout/fairlead.yaml", "services:\n  checkout:\n    main: .\n    port: 1\n")
	for main, want := range map[string]string{"": "checkout", ".": "checkout", "../shipping": "", "example.com/checkout": "checkout"} {
		o := Options{Dir: filepath.Join(dir, "checkout"), User: "-"}
		if main != "" {
			o.Flags = []Flag{{Name: "--main", Key: "main", Values: []string{main}}}
		}
		if l, _ := Load(o); l.Service != want {
			t.Errorf("%q: %q, want %q", main, l.Service, want)
		}
	}
}

// What the top level says of its own service, it does not say of another main package; what is for all of them, it does.
func TestTopLevelOfOtherMain(t *testing.T) {
	own := "name: front\nargs: [a]\nport: 7\nenv: {A: b}\ndependencies: {billing: {main: ./cmd/billing}}\n"
	dir := write(t, ".git", "/", "cmd/front/x.go", "", "cmd/billing/x.go", "", "fairlead.yaml", own+"main: ./cmd/front\n", "cmd/front/fairlead.yaml", own, "tools/fairlead.yaml", own, "tools/x/x.go", "")
	for _, tt := range []struct {
		dir, main string
		own       bool
	}{
		{".", "", true}, {".", "./cmd/front", true}, {".", "./cmd/billing", false}, {".", "example.com/front", true},
		{"cmd/front", "", true}, {"cmd/front", ".", true}, {"cmd/front", "../billing", false},
		{"tools", "./x", true}, {"tools", "../cmd/front", false},
	} {
		o := Options{Dir: filepath.Join(dir, tt.dir), User: "-"}
		if tt.main != "" {
			o.Flags = []Flag{{Name: "--main", Key: "main", Values: []string{tt.main}}}
		}
		l := load(t, o)
		want := map[bool]string{true: "front [a] 7 1 map[A:b]", false: " [] 0 0 map[A:b]"}[tt.own]
		if got := fmt.Sprint(l.Name, l.Args, l.Port, len(l.Dependencies), l.Env); strings.ReplaceAll(got, " ", "") != strings.ReplaceAll(want, " ", "") {
			t.Errorf("--main %q in %s: %s, want %s", tt.main, tt.dir, got, want)
		}
		if o := l.Origin("name"); (o == "default") == tt.own {
			t.Errorf("--main %q in %s: the name is from %s", tt.main, tt.dir, o)
		}
	}
}

// A mode may be written short; what is set later replaces its own name only, and a flag's mode leaves the seed.
func TestDependencies(t *testing.T) {
	dir := write(t, ".git/", "/", "fairlead.yaml", "dependencies:\n  postgres: {mode: fresh, seed: load}\n  redis: fresh\n  noise: off\n  rates.finance: shared\n")
	l := load(t, Options{Dir: dir, User: "-", Flags: []Flag{{Name: "--shared", Key: "dependencies", Values: []string{"redis=shared"}}, {Name: "--fresh", Key: "dependencies", Values: []string{"postgres=fresh", "billing=fresh"}}}})
	want := map[string]Dependency{"postgres": {Mode: "fresh", Seed: "load"}, "redis": {Mode: "shared"}, "noise": {Mode: "off"}, "rates.finance": {Mode: "shared"}, "billing": {Mode: "fresh"}}
	if d := cmp.Diff(want, l.Dependencies); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// Without a mode it is shared; one that is run here is a command or a package, not both.
func TestDependenciesHere(t *testing.T) {
	dir := write(t, ".git/", "/", "fairlead.yaml", "dependencies:\n  redis: {run: redis-server, port: 6379}\n  billing: {main: ./cmd/billing, mode: fresh}\n")
	l := load(t, Options{Dir: dir, User: "-"})
	want := map[string]Dependency{"redis": {Run: "redis-server", Port: 6379}, "billing": {Mode: "fresh", Main: filepath.Join(dir, "cmd/billing")}}
	if d := cmp.Diff(want, l.Dependencies); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	dir = write(t, ".git/", "/", "fairlead.yaml", "dependencies:\n  billing: {main: ./cmd/billing, run: go run .}\n")
	_, problems := Load(Options{Dir: dir, User: "-"})
	if len(problems) != 1 || !strings.Contains(problems[0].Message, "dependencies.billing.run") || problems[0].Line != 2 {
		t.Errorf("%+v", problems)
	}
}

func TestKeys(t *testing.T) {
	names := func(path ...string) string {
		var out []string
		for _, k := range Keys(path...) {
			if k.Doc == "" || k.Kind == "" {
				t.Errorf("%v.%s is not documented", path, k.Name)
			}
			out = append(out, k.Name)
		}
		return strings.Join(out, " ")
	}
	for path, want := range map[string]string{
		"build":                 "flags tags env",
		"dependencies":          "",
		"dependencies postgres": "mode seed main run engine user password database port ready env",
		"sync":                  "from to ignore",
		"services orders watch": "ignore rest",
		"env":                   "",
		"services":              "",
		"grace":                 "",
		"nothing":               "",
		"build flags":           "",
	} {
		if got := names(strings.Fields(path)...); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	if top, service := names(), names("services", "orders"); top != "version "+service+" services" {
		t.Errorf("%q, %q", top, service)
	}
}

func TestLease(t *testing.T) {
	for text, want := range map[string]time.Duration{"5m": 5 * time.Minute, "2h": 2 * time.Hour, "3d": 72 * time.Hour, "1d12h": 36 * time.Hour, "90m": 90 * time.Minute, "never": 0} {
		if d, err := Duration(text); err != nil || d != want {
			t.Errorf("%s: %v, %v", text, d, err)
		}
		if _, problems := Load(Options{Dir: t.TempDir(), User: "-", Flags: []Flag{{Name: "--sleep", Key: "lease.sleep", Values: []string{text}}}}); len(problems) > 0 {
			t.Errorf("%s: %v", text, problems)
		}
	}
	for _, text := range []string{"", "0", "0d", "4m59s", "-1h", "3", "d", "1.5h", "2h1d", "1w", "never ", "9999999d", "99999999999999999999h"} {
		_, problems := Load(Options{Dir: t.TempDir(), User: "-", Flags: []Flag{{Name: "--sleep", Key: "lease.sleep", Values: []string{text}}}})
		if len(problems) != 1 || !strings.Contains(problems[0].Message, "is not a duration of five minutes or more, or never") || !strings.Contains(problems[0].Hint, "write it as 90m, 2h or 3d") {
			t.Errorf("%q: %v", text, problems)
		}
	}
}

// A registry is a URL that is taken as it is, or a path from the file on; a credential in one is shown at its line, and not said.
func TestRegistry(t *testing.T) {
	for text, want := range map[string]string{
		"https://git.example.com/team/registry.git": "https://git.example.com/team/registry.git", "git@git.example.com:team/registry.git": "git@git.example.com:team/registry.git",
		"ssh://git@git.example.com/r.git": "ssh://git@git.example.com/r.git", "../registry.git": "UP/registry.git", "/srv/registry.git": "/srv/registry.git",
		"https://me:hunter2@git.example.com/r.git": "", "https://hunter2@git.example.com/r.git": "", "https://me:hunter2@git example.com": "", "ext::sh -c hunter2": "", "--upload-pack=hunter2": "",
	} {
		dir := write(t, ".git/", "/", "svc/fairlead.yaml", "version: 1\nregistry: \""+text+"\"\n", "svc/", "/")
		l, problems := Load(Options{Dir: filepath.Join(dir, "svc"), User: "-"})
		if got := strings.Replace(l.Registry, dir, "UP", 1); got != want {
			t.Errorf("%s: %q, want %q: %v", text, got, want, problems)
		}
		if (want == "") != (len(problems) == 1) || len(problems) == 1 && (problems[0].Line != 2 || !strings.HasPrefix(text, "--") && strings.Contains(problems[0].Message+problems[0].Hint, "hunter2")) {
			t.Errorf("%s: %v", text, problems)
		}
	}
}
