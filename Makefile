# Thin: what is more than a line is a Go program.
GO      ?= go
VERSION ?= $(shell git describe --always --dirty=-$$(git diff HEAD 2>/dev/null | cksum | cut -d' ' -f1) 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)

.DEFAULT_GOAL := help

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: payload ## bin/fairlead, which needs nothing beside it
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags='$(LDFLAGS)' -o bin/fairlead ./cmd/fairlead

payload: ## the pod's side for linux/amd64 and arm64, embedded by build
	$(GO) run ./bridge/payload/gen -version $(VERSION)
