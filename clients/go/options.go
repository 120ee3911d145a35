package tandem

import (
	"context"
	"crypto/tls"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
)

// ServiceConfig says which refusals are tried again, and when. A gateway decides on admission before anything of the
// text is sent, so nothing is made twice; when it says itself when to come back, that counts instead of the backoff.
const ServiceConfig = `{
	"methodConfig": [{
		"name": [{"service": "tandem.v1.GenerationService"}, {"service": "tandem.v1.ModelService"}],
		"retryPolicy": {
			"maxAttempts": 4,
			"initialBackoff": "0.2s",
			"maxBackoff": "5s",
			"backoffMultiplier": 2,
			"retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"]
		}
	}]
}`

// Log-probabilities of a whole prompt are larger than what gRPC takes by default.
const maxMessageBytes = 64 << 20

// Option is a choice that New is given.
type Option func(*settings)

type settings struct {
	tls    *tls.Config
	apiKey string
	dial   []grpc.DialOption
}

// WithTLS calls the gateway over TLS. An empty config trusts the authorities that this machine trusts; RootCAs names
// others, Certificates is what the gateway is shown, ServerName the name in its certificate if not the address's host.
func WithTLS(config *tls.Config) Option {
	return func(s *settings) { s.tls = config }
}

// WithAPIKey sends key with every call. Without WithTLS, whoever is on the way can read it.
func WithAPIKey(key string) Option {
	return func(s *settings) { s.apiKey = key }
}

// WithDialOptions adds options of gRPC itself, such as interceptors, or a service config in place of ServiceConfig.
func WithDialOptions(options ...grpc.DialOption) Option {
	return func(s *settings) { s.dial = append(s.dial, options...) }
}

func dialOptions(options []Option) []grpc.DialOption {
	var chosen settings
	for _, option := range options {
		option(&chosen)
	}
	dial := []grpc.DialOption{
		grpc.WithDefaultServiceConfig(ServiceConfig),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessageBytes)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
	}
	if chosen.tls != nil {
		dial = append(dial, grpc.WithTransportCredentials(credentials.NewTLS(chosen.tls)))
	} else {
		dial = append(dial, grpc.WithInsecure())
	}
	if chosen.apiKey != "" {
		dial = append(dial, grpc.WithPerRPCCredentials(apiKey(chosen.apiKey)))
	}
	return append(dial, chosen.dial...)
}

// apiKey is a key as gRPC's credentials of a call.
type apiKey string

func (k apiKey) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(k)}, nil
}

// RequireTransportSecurity is false: gateways on this machine and on Unix sockets have no TLS.
func (k apiKey) RequireTransportSecurity() bool {
	return false
}
