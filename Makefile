# Everything that is done more than once. make alone says what there is.
SHELL := /usr/bin/env bash -o pipefail
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# The tools and the programs built here; nothing is downloaded but Go modules.
BIN := bin
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
IMAGE ?= supportaccess.dev/support-access:$(VERSION)
# One package of tests starts one control plane, so not too many at once. RUN narrows the tests, PACKAGES the packages. What
# go test would vet, make lint vets.
TEST_FLAGS ?= -timeout=40m -vet=off
PACKAGES ?= ./...
RUN ?=

# A tool is built from the module that pins it, again when its version changes.
CONTROLLER_GEN := $(BIN)/controller-gen
CRD_REF_DOCS := $(BIN)/crd-ref-docs
GOLANGCI_LINT := $(BIN)/golangci-lint
HELM := $(BIN)/helm

##@ Everyday

.PHONY: help
help: ## Print this help.
	@awk 'BEGIN {FS = ":.*## "} \
		/^##@/ {printf "\n%s\n", substr($$0, 5)} \
		/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build the operator and the kubectl plugin into bin.
	go build -trimpath -ldflags "-X main.version=$(VERSION)" -o $(BIN)/support-access .
	go build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o $(BIN)/kubectl-support_access ./cmd/kubectl-support_access

.PHONY: generate
generate: generate-api generate-chart generate-docs ## Write everything that is generated: deep copies, CRDs, chart, API reference.

.PHONY: test
test: controlplane postgres $(HELM) ## Run the tests, on a real control plane where they need one. RUN=name, PACKAGES=./dir/...
	go run ./hack/testreport -short $(TEST_FLAGS) $(if $(RUN),-run '$(RUN)') $(PACKAGES)

.PHONY: test-long
test-long: controlplane postgres $(HELM) ## Run the tests and those that take minutes: storms, crash points, fuzzing by its seeds.
	go run ./hack/testreport $(TEST_FLAGS) -timeout=90m $(if $(RUN),-run '$(RUN)') $(PACKAGES)

.PHONY: fuzz
fuzz: controlplane $(HELM) ## Ask the gateway for what servers read differently, and compare with what the API server saw. FOR=10m
	FUZZ_TIME=$(or $(FOR),10m) go test -count=1 -timeout=0 -v -run TestTheAPIServerSaw ./test/gateway

.PHONY: soak
soak: controlplane $(HELM) ## Work through the gateway for hours, and see that it stays as small as it is. FOR=2h
	SOAK_TIME=$(or $(FOR),2h) go test -count=1 -timeout=0 -v -run AfterHours ./test/gateway

.PHONY: lint
lint: $(GOLANGCI_LINT) ## Check the code against the rules in .golangci.yml.
	$(GOLANGCI_LINT) run $(PACKAGES)

.PHONY: verify
verify: generate lint ## Prove that what is generated is fresh, the code clean and go.mod tidy. For a clean work tree.
	go mod tidy -diff
	git diff --exit-code
	@test -z "$$(git ls-files --others --exclude-standard)" || \
		{ echo "files that git does not know:"; git ls-files --others --exclude-standard; exit 1; }

##@ On a local control plane

.PHONY: controlplane
controlplane: ## Build etcd, the Kubernetes control plane, kubectl and kwok: minutes the first time, then none.
	go run ./hack/controlplane/cmd

.PHONY: postgres
postgres: ## Install a PostgreSQL server for the tests, if there is none: Debian's package. SKIP_POSTGRES=1 does without.
	go run ./hack/postgres/cmd

.PHONY: demo
demo: ## Show a grant from its application to its end, on a control plane that is gone afterwards.
	go run ./hack/demo show

.PHONY: up
up: ## Leave a cluster with the operator running, for play. .demo/admin.kubeconfig reaches it.
	go run ./hack/demo up

.PHONY: down
down: ## Stop what up left running.
	go run ./hack/demo down

.PHONY: bench
bench: controlplane $(HELM) ## Measure opening, revoking and expiring against what a bare client needs.
	go run ./test/bench

.PHONY: run
run: build ## Run the controller outside of a cluster, on the one that KUBECONFIG names. ARGS are added.
	POD_NAMESPACE=support-access-system POD_NAME=$$(hostname) $(BIN)/support-access controller --log-format=text $(ARGS)

##@ To ship

.PHONY: image
image: ## Build the image. IMAGE names it.
	docker build --build-arg VERSION=$(VERSION) --tag $(IMAGE) .

.PHONY: chart
chart: generate-chart $(HELM) ## Check the chart and pack it into bin.
	$(HELM) lint charts/support-access
	$(HELM) package charts/support-access --destination $(BIN)

# What follows is not for hands. Each generator says what it writes; generate runs them all.

.PHONY: generate-api
generate-api: $(CONTROLLER_GEN)
	$(CONTROLLER_GEN) object paths=./api/... crd paths=./api/... output:crd:dir=config/crd

.PHONY: generate-chart
generate-chart: generate-api
	go run ./hack/chart

.PHONY: generate-docs
generate-docs: $(CRD_REF_DOCS)
	$(CRD_REF_DOCS) --source-path=api --config=hack/tools/generate/crd-ref-docs.yaml --renderer=markdown --output-path=docs/reference/api.md

$(CONTROLLER_GEN): hack/tools/generate/go.mod
	go build -C hack/tools/generate -o $(CURDIR)/$@ sigs.k8s.io/controller-tools/cmd/controller-gen

$(CRD_REF_DOCS): hack/tools/generate/go.mod
	go build -C hack/tools/generate -o $(CURDIR)/$@ github.com/elastic/crd-ref-docs

# golangci-lint with kube-api-linter in it.
$(GOLANGCI_LINT): hack/tools/lint/go.mod
	go build -C hack/tools/lint -trimpath -ldflags "-s -w" -o $(CURDIR)/$@ sigs.k8s.io/kube-api-linter/cmd/golangci-lint-kube-api-linter

$(HELM): hack/tools/helm/go.mod
	go build -C hack/tools/helm -trimpath -ldflags "-s -w" -o $(CURDIR)/$@ helm.sh/helm/v4/cmd/helm
