// Package settings owns what a user can set: the struct, where its values come from (defaults, the repository's
// fairlead.yaml, the user's own file, flags, each over the one before), and what is said about wrong ones. The comments
// of the struct are the documentation: settings.md and fairlead.schema.json are made of them by this package's test.
//
// It must not know what the values do: it checks their form, so that a mistake is shown at its line before anything is
// built or made.
package settings

import "time"

// Settings is what can be set for one service.
type Settings struct {
	// Name of the service: a DNS label. Environments and what the pod is called are named after it. Without it, the name
	// is made from the main package's import path.
	Name string `yaml:"name" check:"label" scope:"repository" example:"orders"`
	// Main is the main package to build: a folder, relative to this file, or an import path. Without it, it is found. `name`, `args`, `port` and
	// `dependencies` beside it are of this one: where another is asked for, they do not count.
	Main string `yaml:"main" check:"main" scope:"repository" example:"./cmd/orders"`
	// Args are the arguments that the service is started with.
	Args []string `yaml:"args" check:"argument" loose:"true" example:"[--port, 8080]"`
	// Env is added to the service's environment, name by name: a name that is set later replaces only itself. Numbers and
	// booleans are taken as they are written.
	Env map[string]string `yaml:"env" check:"env" loose:"true" example:"{LOG_LEVEL: debug}"`
	// Dir is the service's working directory in the pod, an absolute path. Without it, it is the image's.
	Dir string `yaml:"dir" check:"pod-path" example:"/app"`
	// Port is the service's main port, which the local address leads to. Without it, it is the first that the service
	// listens on.
	Port int `yaml:"port" check:"port" example:"8080"`
	// Grace is how long the old process may go on after SIGTERM, beyond the requests that are in flight, before it is
	// killed.
	Grace time.Duration `yaml:"grace" check:"duration" default:"80ms" example:"500ms"`
	// On says where the environment is: on this machine (`local`) or in a cluster (`kubernetes`).
	On string `yaml:"on" check:"on" default:"local" example:"kubernetes"`
	// Kubernetes says which cluster, and where in it.
	Kubernetes Kubernetes `yaml:"kubernetes"`
	// Dependencies say how the environment has what the service calls, by the Service's name. In a cluster, those that are
	// not named are found, and shared. `{{NAME}}` in `args` and `env` is the address of one, as host:port. `fairlead deps`
	// lists them.
	Dependencies map[string]Dependency `yaml:"dependencies" check:"dependency" example:"{postgres: fresh, billing: shared}"`
	// Build says how the executable is built.
	Build Build `yaml:"build"`
	// Sync lists folders of plain files, such as templates, that are kept equal in the pod. The whole list replaces one
	// that was set before.
	Sync []Sync `yaml:"sync" scope:"repository"`
	// Hosts lists further names that requests to the local address may have in their Host header. Others than these and
	// the machine's own are refused, because any web page can make a browser send them.
	Hosts []string `yaml:"hosts" check:"host" example:"[orders.test]"`
	// Watch says which changes of files are noticed, and when.
	Watch Watch `yaml:"watch"`
	// Lease says how long an environment on Kubernetes stays that nobody uses.
	Lease Lease `yaml:"lease"`
	// Calls says what becomes of what the service calls in its environment.
	Calls Calls `yaml:"calls"`
	// Registry is the git repository with the team's services and who may call what: a URL, host:path for ssh, or a path,
	// relative to this file. Without it, it is one on this machine, which knows nothing at first.
	Registry string `yaml:"registry" check:"remote" example:"https://git.example.com/team/registry.git"`
	// Review says what a draft review is made of (`fairlead review`).
	Review Review `yaml:"review"`
}

// Review says what a draft review is made of.
type Review struct {
	// Base is the branch that reviews are for. Without it, it is the remote's default.
	Base string `yaml:"base" check:"text" example:"develop"`
	// Ticket is where a ticket is, with `{key}` in it in place of its key. Without it, a ticket's key is written without a link;
	// a number is an issue of the forge.
	Ticket string `yaml:"ticket" check:"ticket" example:"https://acme.atlassian.net/browse/{key}"`
	// Templates says which template is taken, by the paths that are edited. `*` is a part of a name, `**` any folders. Without one
	// that fits, it is the one whose name names the edited folders, or the forge's own.
	Templates map[string]string `yaml:"templates" check:"text" example:"{'docs/**': docs.md}"`
}

// Calls says what becomes of what the service calls in its environment.
type Calls struct {
	// Mode says what becomes of a call that the registry has not granted: `enforce` refuses it and says so, `warn` lets it
	// through and says so, with `off` nobody looks. A service that is not in the registry may be called by everybody.
	Mode string `yaml:"mode" check:"calls" default:"enforce" example:"warn"`
}

// Kubernetes says which cluster, and where in it.
type Kubernetes struct {
	// Context is the kubeconfig's context to use. Without it, it is the current one.
	Context string `yaml:"context" check:"text" example:"staging"`
	// Namespace is where staging is: the Deployment that the pod is made after, and what is shared. Without it, it is the
	// context's.
	Namespace string `yaml:"namespace" check:"namespace" example:"shop"`
	// Isolation says where the environment is made: in a `namespace` of its own, with a quota, a network policy and service
	// accounts without rights; with `none` in staging's; or in one of its own where you may make it (`auto`).
	Isolation string `yaml:"isolation" check:"isolation" default:"auto" example:"none"`
	// Quota is what an environment in a namespace of its own may take, by the resource's name in Kubernetes, beside what
	// holds anyway.
	Quota map[string]string `yaml:"quota" check:"resource" loose:"true" example:"{requests.memory: 64Gi}"`
	// Egress lists ranges of addresses that an environment in a namespace of its own may reach, beside its dependencies and
	// the public internet.
	Egress []string `yaml:"egress" check:"range" example:"[10.20.0.0/16]"`
	// Domain is the cluster's own, which the names of Services end with.
	Domain string `yaml:"domain" check:"host" default:"cluster.local" example:"cluster.example"`
	// Registry is where the image with Fairlead's own part of the pod is pushed to: a host, with a path if need be.
	Registry string `yaml:"registry" check:"registry" example:"registry.example.com/dev"`
	// Image is the base image for a service that has no staging Deployment.
	Image string `yaml:"image" check:"image" example:"registry.example.com/base/static"`
	// Template is the name of the staging Deployment that the pod is made after. Without it, it is the service's name.
	Template string `yaml:"template" check:"object" example:"orders"`
	// Kubeconfig is the file to use, relative to this one. `~/` is the home folder. Without it, it is KUBECONFIG or
	// `~/.kube/config`.
	Kubeconfig string `yaml:"kubeconfig" check:"file" example:"~/.kube/staging"`
}

// Dependency says how the environment has something that the service calls. A mode alone may be written in place of the
// map.
type Dependency struct {
	// Mode is `shared` for the one that everybody has (in staging, or on this machine), `fresh` for a copy of the
	// environment's own that begins empty, or `off` for what was found and is no dependency.
	Mode string `yaml:"mode" check:"mode" default:"shared" short:"true" example:"fresh"`
	// Seed fills the dependency once, before the service starts. In a cluster it is the name of a Job or CronJob of the
	// namespace, and fills a fresh one. On this machine it is a file for `engine`, relative to this one: `.sql`, or for Redis
	// `.rdb` or `.redis`, a command a line.
	Seed string `yaml:"seed" check:"seed" example:"load-fixtures"`
	// Main is the main package that it is on this machine: a folder, relative to this file, or an import path. It is built,
	// run and brought up to date as the service itself is. Without it and `run`, a package of its name is looked for.
	Main string `yaml:"main" check:"main" scope:"repository" example:"./cmd/billing"`
	// Run is the shell command that it is on this machine, in this file's folder. `{{port}}` in it is the port that it is to
	// listen on; the variable PORT has it too.
	Run string `yaml:"run" check:"text" scope:"repository" example:"redis-server --port {{port}}"`
	// Engine is the database that it is on this machine, by its installed programs: `postgresql`, `mysql` (which is MariaDB;
	// `mariadb` says the same) or `redis`. Without it, `main` and `run`, a DSN in `env` that has `{{NAME}}` tells it.
	Engine string `yaml:"engine" check:"engine" scope:"repository" example:"postgresql"`
	// User is the role that the engine has for the service. Without it, it is that of the DSNs in `env` that have `{{NAME}}`.
	User string `yaml:"user" check:"text" example:"shop"`
	// Password is the role's.
	Password string `yaml:"password" check:"text" loose:"true" example:"secret"`
	// Database is made for the role, which owns it.
	Database string `yaml:"database" check:"text" example:"shop"`
	// Port is what it listens on. Without it, a command or an engine is given a free one.
	Port int `yaml:"port" check:"port" example:"6379"`
	// Ready is a path that answers with a status below 400 once it can be used on this machine. Without it, it can as soon
	// as it listens.
	Ready string `yaml:"ready" check:"url-path" example:"/healthz"`
	// Env is added to its environment on this machine, name by name.
	Env map[string]string `yaml:"env" check:"env" loose:"true" example:"{LOG_LEVEL: warn}"`
}

// Build says how the executable is built.
type Build struct {
	// Flags are added to those in GOFLAGS, each with its value as one element.
	Flags []string `yaml:"flags" check:"flag" example:"[-race]"`
	// Tags are build tags, added to those in GOFLAGS.
	Tags []string `yaml:"tags" check:"tag" example:"[integration]"`
	// Env is added to the go command's environment, name by name.
	Env map[string]string `yaml:"env" check:"env" loose:"true" example:"{GOEXPERIMENT: jsonv2}"`
}

// Sync is one folder of plain files that is kept equal in the pod.
type Sync struct {
	// From is the folder here, relative to this file. It lies in the repository, also after symbolic links are followed.
	From string `yaml:"from" check:"from" required:"true" example:"./templates"`
	// To is the folder in the pod: an absolute path, and no folder of the system. What From does not have is deleted
	// there.
	To string `yaml:"to" check:"to" required:"true" example:"/app/templates"`
	// Ignore lists patterns, as in .gitignore, of what stays here.
	Ignore []string `yaml:"ignore" check:"pattern" example:"['*.psd']"`
}

// Watch says which changes of files are noticed, and when.
type Watch struct {
	// Ignore lists patterns, as in .gitignore, of what is not watched, beside what .gitignore itself says.
	Ignore []string `yaml:"ignore" check:"pattern" example:"[gen/]"`
	// Rest is how long no file must have changed before a build begins. Without it, it is adapted to the editor.
	Rest time.Duration `yaml:"rest" check:"duration" example:"100ms"`
}

// Lease says how long an environment on Kubernetes stays that nobody uses. A request through its local address, an attached
// front end or debugger, a running test and a save are uses.
type Lease struct {
	// Sleep is how long an environment may be unused before it is scaled to zero, or `never`. The next run wakes it.
	Sleep string `yaml:"sleep" check:"lease" default:"2h" example:"90m"`
	// Delete is how long an environment may be asleep before it is deleted, or `never`.
	Delete string `yaml:"delete" check:"lease" default:"3d" example:"12h"`
}

// file is the content of one settings file.
type file struct {
	// Version of the file's format.
	Version  int `yaml:"version" check:"version" example:"1"`
	Settings `yaml:",inline"`
	// Services names the services of a repository that has several. Each has the keys of the top level, and what is set
	// there goes before what the top level sets for all. A service is chosen by its name, or by the folder that one
	// starts in: the one that its `main` is in or below.
	Services map[string]Settings `yaml:"services" check:"label" scope:"repository"`
}

// Defaults returns what holds where nothing is set.
func Defaults() Settings {
	return Settings{Grace: 80 * time.Millisecond, On: "local", Kubernetes: Kubernetes{Isolation: "auto", Domain: "cluster.local"}, Calls: Calls{Mode: "enforce"}, Lease: Lease{Sleep: "2h", Delete: "3d"}}
}
