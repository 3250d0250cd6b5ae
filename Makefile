# Thin: what is more than a line is a Go program.
GO      ?= go
VERSION ?= $(shell git describe --always --dirty=-$$(git diff HEAD 2>/dev/null | cksum | cut -d' ' -f1) 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)

.DEFAULT_GOAL := help

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: payload ## bin/fairlead, which needs nothing beside it
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags='$(LDFLAGS)' -o bin/fairlead ./cmd/fairlead

platform: ## bin/fairlead-platform, which a team runs in its cluster: the janitor of environments
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags='$(LDFLAGS)' -o bin/fairlead-platform ./cmd/fairlead-platform

payload: ## the pod's side for linux/amd64 and arm64, embedded by build
	$(GO) run ./bridge/payload/gen -version $(VERSION)

vsix: payload ## dist/*.vsix: the VS Code extension, with the agent, for every platform (TARGET=linux-x64 for one)
	npm --prefix editors/vscode ci --loglevel=error
	node editors/vscode/scripts/vsix.mjs --version $(VERSION) $(TARGET)

demo: build ## the main job on the embedded default, by itself: run, edit, live
	$(GO) run ./test/demo

test: ## every test (with the real cluster where this machine can have it)
	$(GO) run ./test/run

pictures: ## docs/images: the README's pictures, made by the tests of the editors
	FAIRLEAD_TEST_PICTURES=1 $(GO) run ./test/run -only build,cluster,editors

race: ## the engines' tests under the race detector
	$(GO) test -race ./api ./bridge ./debugadapter/... ./syncer/... ./server/...

fuzz: ## each fuzz target for half a minute
	@for p in $$($(GO) list ./...); do for f in $$($(GO) test -list '^Fuzz' $$p | grep ^Fuzz); do \
	  echo "== $$p $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime 30s -fuzzminimizetime 10x $$p || exit 1; done; done

cluster: ## start the test cluster (or find it running); the last line is its kubeconfig
	@cd test/cluster && $(GO) run ./cmd/cluster up

cluster-down: ## stop the test cluster and remove what it made
	@cd test/cluster && $(GO) run ./cmd/cluster down

bench-edit: build ## save -> new code answers, beside a floor in the same run; JSON (needs make cluster for Kubernetes)
	@$(GO) run ./test/bench/edit -on local,kubernetes

bench-debug: build ## save -> breakpoint hit in the new code, steps, 100 redeploys in one session; JSON (needs make cluster for Kubernetes)
	@$(GO) run ./bridge/payload/gen -version $(VERSION) -raw bin
	@$(GO) run ./test/bench/debug -pod bin/fairlead-pod-linux-$$($(GO) env GOARCH) -on local,kubernetes

bench-lsp: build ## process start -> answer to initialize, and code actions in 5,000 files; JSON
	@$(GO) run ./test/bench/lsp

bench-logs: payload ## log lines from the service to a websocket client, beside kubectl logs -f; JSON (needs make cluster)
	@$(GO) build -o bin/bench-logs ./test/bench/logs && bin/bench-logs

bench-env: build ## what an environment costs: 10 shared dependencies, 5 fresh ones beside their floor, 50 at once; JSON (needs make cluster)
	@$(GO) run ./test/bench/env

bench-reviewers: ## REPO=path: how often the suggested reviewers were right, for its last N=1000 reviewed changes; without REPO times on a made one; JSON
	@$(GO) run ./test/bench/reviewer $(if $(REPO),-repo '$(REPO)') -n $(or $(N),1000)

bench-review: ## from the button to the open draft, on a Gitea here, in a repository of 10,000 files and 50,000 commits (Gitea is built the first time)
	$(GO) test -run '^$$' -bench Review -benchtime 7x ./server/review

bench-grant: ## from a pushed grant until the agent's registry tells it: a bare repository here, a real Gitea by HTTP (built the first time)
	$(GO) test -run '^$$' -bench Grant -benchtime 15x ./platform/forge

bench-denied: build ## from a request that needs a call that is not granted until that is a problem on its line
	@$(GO) run ./bridge/payload/gen -version $(VERSION) -raw bin
	FAIRLEAD_TEST_BIN=$(CURDIR)/bin/fairlead FAIRLEAD_PAYLOAD=$(CURDIR)/bin $(GO) test -run '^$$' -bench CallDenied -benchtime 9x -timeout 20m ./test/e2e

bench-janitor: ## the janitor's pass over 1,000 environments (needs make cluster, and FAIRLEAD_TEST_KUBECONFIG)
	$(GO) test -run '^$$' -bench Janitor -benchtime 20x ./bridge/kube/janitor

generate: ## what is made from comments and tables: settings.md, the JSON schemas, the editor's settings, the janitor's base
	$(GO) test ./server/settings -update
	$(GO) test ./bridge/kube/janitor -run TestBaseIsTheManifest -update
	$(GO) test ./debugadapter -run TestMembers -update
	node editors/vscode/scripts/settings.mjs

clean: ## remove what build made
	rm -rf bin dist editors/vscode/bin editors/vscode/dist editors/vscode/out bridge/payload/files/*.zst bridge/payload/files/*.sum

.PHONY: help build platform payload vsix demo test race fuzz cluster cluster-down bench-edit bench-debug bench-lsp bench-logs bench-env bench-reviewers bench-review bench-janitor bench-grant bench-denied generate pictures clean
