package callsite

import (
	"go/ast"
	"net/http"
	"strings"
)

// makers are the functions that make a request, with the places of the method and the URL in their arguments. A method is said
// where the function decides it.
var makers = map[string]struct {
	kind        requestKind
	says        string
	method, url int
}{
	"net/http.NewRequest":                                    {kind: requestHTTP, method: 0, url: 1},
	"net/http.NewRequestWithContext":                         {kind: requestHTTP, method: 1, url: 2},
	"net/http.Get":                                           {kind: requestHTTP, says: http.MethodGet, url: 0},
	"net/http.Head":                                          {kind: requestHTTP, says: http.MethodHead, url: 0},
	"net/http.Post":                                          {kind: requestHTTP, says: http.MethodPost, url: 0},
	"net/http.PostForm":                                      {kind: requestHTTP, says: http.MethodPost, url: 0},
	"(*net/http.Client).Get":                                 {kind: requestHTTP, says: http.MethodGet, url: 0},
	"(*net/http.Client).Head":                                {kind: requestHTTP, says: http.MethodHead, url: 0},
	"(*net/http.Client).Post":                                {kind: requestHTTP, says: http.MethodPost, url: 0},
	"(*net/http.Client).PostForm":                            {kind: requestHTTP, says: http.MethodPost, url: 0},
	"google.golang.org/grpc.Invoke":                          {kind: requestInvoke, says: http.MethodPost, url: 1},
	"google.golang.org/grpc.NewStream":                       {kind: requestInvoke, says: http.MethodPost, url: 3},
	"(*google.golang.org/grpc.ClientConn).Invoke":            {kind: requestInvoke, says: http.MethodPost, url: 1},
	"(*google.golang.org/grpc.ClientConn).NewStream":         {kind: requestInvoke, says: http.MethodPost, url: 2},
	"(google.golang.org/grpc.ClientConnInterface).Invoke":    {kind: requestInvoke, says: http.MethodPost, url: 1},
	"(google.golang.org/grpc.ClientConnInterface).NewStream": {kind: requestInvoke, says: http.MethodPost, url: 2},
	"connectrpc.com/connect.NewClient":                       {kind: requestConnect, says: http.MethodPost, url: 1},
	"github.com/bufbuild/connect-go.NewClient":               {kind: requestConnect, says: http.MethodPost, url: 1},
}

// libraries are the packages whose functions make requests, with words one of which stands where one is used.
var libraries = map[string][]string{
	"net/http":                       {".NewRequest", ".NewRequestWithContext", ".Get", ".Head", ".Post", ".PostForm", ".Request"},
	"google.golang.org/grpc":         {".Invoke", ".NewStream"},
	"connectrpc.com/connect":         {".NewClient"},
	"github.com/bufbuild/connect-go": {".NewClient"},
}

// requested notes a request, if the call makes one. The generated code of gRPC and Connect makes them for others to call, which
// stubs.go knows.
func (x *extractor) requested(c *ast.CallExpr, key string, at Place) bool {
	m, ok := makers[key]
	if !ok || m.url >= len(c.Args) {
		return ok
	}
	if x.generated && m.kind != requestHTTP {
		return true
	}
	r := request{kind: m.kind, url: x.eval(c.Args[m.url]), fn: x.fn(), at: at}
	if m.says != "" {
		r.method = text(m.says)
	} else if r.method = x.eval(c.Args[m.method]); isEmpty(r.method) {
		r.method = text(http.MethodGet)
	}
	// A request that is kept may be changed before it is sent.
	if obj := x.holder[c]; obj != nil {
		if as := x.locals[local{obj, "URL"}]; len(as) > 0 && as[len(as)-1].rhs != nil {
			r.url = x.eval(as[len(as)-1].rhs)
		}
		if as := x.locals[local{obj, "URL.Path"}]; len(as) > 0 && as[len(as)-1].rhs != nil {
			r.url = join(hostOnly(r.url), text("/"), trimLeft(x.eval(as[len(as)-1].rhs)))
		}
		if as := x.locals[local{obj, "Method"}]; len(as) > 0 && as[len(as)-1].rhs != nil {
			r.method = x.eval(as[len(as)-1].rhs)
		}
	}
	x.facts.requests = append(x.facts.requests, r)
	return true
}

func isEmpty(v values) bool {
	return len(v) == 1 && len(v[0]) == 1 && v[0][0].kind == partText && v[0][0].text == ""
}

// requestLiteral notes a request that a struct literal makes.
func (x *extractor) requestLiteral(c *ast.CompositeLit) {
	r := request{kind: requestHTTP, method: text(http.MethodGet), fn: x.fn(), at: x.place(c, c)}
	for _, e := range c.Elts {
		kv, ok := e.(*ast.KeyValueExpr)
		if !ok {
			return
		}
		switch id, _ := kv.Key.(*ast.Ident); {
		case id == nil:
		case id.Name == "Method":
			r.method = x.eval(kv.Value)
		case id.Name == "URL":
			r.url = x.eval(kv.Value)
		}
	}
	if r.url != nil {
		x.facts.requests = append(x.facts.requests, r)
	}
}

// runtimeName is the name that a stack has for a function of a key, as far as it can be made of it.
func runtimeName(key, pkgPath, pkgName string) string {
	key, _, _ = strings.Cut(key, "·")
	path := pkgPath
	if pkgName == "main" {
		path = "main"
	} else if i := strings.LastIndexByte(path, '/'); strings.Contains(path[i+1:], ".") {
		path = path[:i+1] + strings.ReplaceAll(path[i+1:], ".", "%2e")
	}
	rest := ""
	switch {
	case strings.HasPrefix(key, "(*"+pkgPath+"."):
		rest = "(*" + key[len("(*"+pkgPath+"."):]
	case strings.HasPrefix(key, "("+pkgPath+"."):
		rest = strings.Replace(key[len("("+pkgPath+"."):], ")", "", 1)
	default:
		rest = strings.TrimPrefix(key, pkgPath+".")
	}
	if i, j := strings.IndexByte(rest, '['), strings.IndexByte(rest, ']'); i >= 0 && j > i {
		rest = rest[:i] + "[...]" + rest[j+1:]
	}
	return path + "." + rest
}
