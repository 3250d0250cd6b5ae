package engine

import (
	"cmp"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"fairlead.dev/api"
)

// programs are what an engine needs, each by the names that it has had.
type programs struct {
	server, init, client []string
	version              *regexp.Regexp // of the server's --version
	least                string
	places               []string          // where packages put them outside of PATH
	packages             map[string]string // by the ID of os-release(5)
}

var installs = map[string]programs{
	PostgreSQL: {server: []string{"postgres"}, init: []string{"initdb"}, client: []string{"psql"}, version: regexp.MustCompile(`\(PostgreSQL\) (\d+(?:\.\d+)*)`), least: "10",
		// Debian, the PostgreSQL project's RPMs, its own build, Homebrew
		places:   []string{"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/local/pgsql/bin", "/home/linuxbrew/.linuxbrew/opt/postgresql*/bin"},
		packages: map[string]string{"debian": "postgresql", "fedora": "postgresql-server", "alpine": "postgresql", "arch": "postgresql", "suse": "postgresql-server"}},
	MySQL: {server: []string{"mariadbd", "mysqld"}, init: []string{"mariadb-install-db", "mysql_install_db"}, client: []string{"mariadb", "mysql"}, version: regexp.MustCompile(`Ver (\d+(?:\.\d+)*)-MariaDB`), least: "10.4",
		places:   []string{"/usr/sbin", "/usr/libexec", "/usr/local/sbin", "/usr/local/mysql/bin", "/home/linuxbrew/.linuxbrew/opt/mariadb*/bin"},
		packages: map[string]string{"debian": "mariadb-server", "fedora": "mariadb-server", "alpine": "mariadb mariadb-client", "arch": "mariadb", "suse": "mariadb mariadb-client"}},
	Redis: {server: []string{"redis-server", "valkey-server"}, version: regexp.MustCompile(`v=(\d+(?:\.\d+)*)`), least: "6.2",
		places:   []string{"/usr/sbin", "/usr/local/bin", "/home/linuxbrew/.linuxbrew/opt/redis*/bin", "/home/linuxbrew/.linuxbrew/opt/valkey*/bin"},
		packages: map[string]string{"debian": "redis-server", "fedora": "valkey", "alpine": "redis", "arch": "valkey", "suse": "redis"}},
}

// Installed finds an engine's binaries: those on the PATH of env first, then the newest where packages put them.
func Installed(kind string, env []string) (Binaries, error) {
	all := find(kind, env)
	if len(all) == 0 {
		return Binaries{}, notInstalled(kind)
	}
	return all[0], nil
}

func find(kind string, env []string) []Binaries {
	in := installs[kind]
	path := ""
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			path = v
		}
	}
	var onPath []string
	for _, d := range filepath.SplitList(path) {
		if filepath.IsAbs(d) { // a relative one would mean the folder of whoever asks
			onPath = append(onPath, d)
		}
	}
	var elsewhere []string
	for _, p := range in.places {
		dirs, _ := filepath.Glob(p)
		elsewhere = append(elsewhere, dirs...)
	}
	var all, others []Binaries
	seen := map[string]bool{}
	for i, d := range append(slices.Clone(onPath), elsewhere...) {
		server := first([]string{d}, in.server)
		if real, err := filepath.EvalSymlinks(server); err != nil || seen[real] {
			continue
		} else {
			seen[real] = true
		}
		out, _ := exec.Command(server, "--version").CombinedOutput()
		m := in.version.FindSubmatch(out)
		b := Binaries{Kind: kind, Server: server}
		if m == nil || compare(string(m[1]), in.least) < 0 {
			continue
		}
		b.Version = string(m[1])
		// What makes the data is the server's own; any client will do.
		near := append([]string{d, filepath.Join(filepath.Dir(d), "bin")}, onPath...)
		b.Init, b.Client = first(near, in.init), first(append(near, elsewhere...), in.client)
		if in.init != nil && b.Init == "" || in.client != nil && b.Client == "" {
			continue
		}
		if i < len(onPath) {
			all = append(all, b)
		} else {
			others = append(others, b)
		}
	}
	slices.SortStableFunc(others, func(a, b Binaries) int { return compare(b.Version, a.Version) })
	return append(all, others...)
}

// first is the first executable of the names in the folders.
func first(dirs, names []string) string {
	for _, d := range dirs {
		for _, n := range names {
			p := filepath.Join(d, n)
			if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
				return p
			}
		}
	}
	return ""
}

// compare compares versions number by number.
func compare(a, b string) int {
	as, bs := strings.Split(a, "."), strings.Split(b, ".")
	for i := range max(len(as), len(bs)) {
		var x, y int
		if i < len(as) {
			x, _ = strconv.Atoi(as[i])
		}
		if i < len(bs) {
			y, _ = strconv.Atoi(bs[i])
		}
		if c := cmp.Compare(x, y); c != 0 {
			return c
		}
	}
	return 0
}

// matching is the installed PostgreSQL that data was made by, whose major version the file says; b where there is no such file.
func matching(b Binaries, file string) (Binaries, error) {
	text, err := os.ReadFile(file)
	if b.Kind != PostgreSQL || err != nil {
		return b, nil
	}
	major := strings.TrimSpace(string(text))
	for _, c := range append([]Binaries{b}, find(b.Kind, os.Environ())...) {
		if c.Version == major || strings.HasPrefix(c.Version, major+".") {
			return c, nil
		}
	}
	return b, &api.Problem{Code: "engine-version", Message: "the data is of PostgreSQL " + major + ", and " + b.Version + " is installed",
		Hint: "install PostgreSQL " + major + ", or begin anew with fairlead deps reset"}
}

func notInstalled(kind string) error {
	release, _ := os.ReadFile("/etc/os-release")
	in := installs[kind]
	return &api.Problem{Code: "no-engine", Message: Title(kind) + " " + in.least + " or newer is not installed: no " + strings.Join(in.server, " or ") + " was found on PATH or where packages put it",
		Hint: howToInstall(kind, string(release))}
}

// howToInstall is the command of this machine's distribution, by its os-release(5).
func howToInstall(kind, release string) string {
	var ids []string
	for line := range strings.Lines(release) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		if k == "ID" || k == "ID_LIKE" {
			ids = append(ids, strings.Fields(strings.Trim(v, `"'`))...)
		}
	}
	family := map[string]string{"debian": "debian", "ubuntu": "debian", "fedora": "fedora", "rhel": "fedora", "centos": "fedora", "alpine": "alpine", "arch": "arch", "suse": "suse", "opensuse": "suse"}
	command := map[string]string{"debian": "sudo apt-get install", "fedora": "sudo dnf install", "alpine": "sudo apk add", "arch": "sudo pacman -S", "suse": "sudo zypper install"}
	for _, id := range ids {
		if f := family[id]; f != "" {
			return command[f] + " " + installs[kind].packages[f]
		}
	}
	return "install it, or put the folder of its programs on PATH"
}
