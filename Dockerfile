# syntax=docker/dockerfile:1
FROM --platform=$BUILDPLATFORM golang:1.26 AS build
ARG TARGETOS
ARG TARGETARCH
ARG VERSION=dev
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY api api
COPY config config
COPY controllers controllers
COPY internal internal
COPY main.go main.go
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -ldflags "-s -w -X main.version=$VERSION" -o /support-access .

FROM gcr.io/distroless/static:nonroot
COPY --from=build /support-access /support-access
COPY LICENSE /LICENSE
USER 65532:65532
ENTRYPOINT ["/support-access"]
