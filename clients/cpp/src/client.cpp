#include "tandem/client.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include <algorithm>
#include <fstream>
#include <sstream>
#include <stdexcept>

#include "call.h"
#include "tandem/v1/generation_service.grpc.pb.h"
#include "tandem/v1/model_service.grpc.pb.h"

namespace tandem {
namespace {

// Both codes come before the first message, and the server says when to come back.
constexpr char kServiceConfig[] = R"({
  "loadBalancingConfig": [{"round_robin": {}}],
  "methodConfig": [{
    "name": [{}],
    "retryPolicy": {
      "maxAttempts": 5, "initialBackoff": "0.1s", "maxBackoff": "1s", "backoffMultiplier": 2,
      "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"]
    }
  }]
})";

std::string contents(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  if (!(text << file.rdbuf())) throw std::invalid_argument("cannot read authorities from " + path);
  return text.str();
}

std::shared_ptr<grpc::Channel> open(const ClientOptions& options) {
  grpc::SslCredentialsOptions tls;
  if (!options.ca_file.empty()) tls.pem_root_certs = contents(options.ca_file);
  grpc::ChannelArguments arguments;
  arguments.SetServiceConfigJSON(kServiceConfig);
  return grpc::CreateCustomChannel(
      options.address, options.ca_file.empty() ? grpc::InsecureChannelCredentials() : grpc::SslCredentials(tls),
      arguments);
}

// gRPC aborts the process on a header that cannot be sent.
std::string authorization(const std::string& api_key) {
  if (api_key.empty()) return {};
  if (!std::all_of(api_key.begin(), api_key.end(), [](char c) { return c > ' ' && c <= '~'; })) {
    throw std::invalid_argument("an API key is printable ASCII without spaces");
  }
  return "Bearer " + api_key;
}

void check(const grpc::Status& status) {
  if (!status.ok()) throw Error(status);
}

}  // namespace

struct Client::Connection {
  explicit Connection(const ClientOptions& options)
      : authorization(tandem::authorization(options.api_key)), timeout(options.timeout), channel(open(options)) {}

  // Gives a call its key and its deadline.
  void prepare(grpc::ClientContext& context, Timeout wanted) const {
    if (!authorization.empty()) context.AddMetadata("authorization", authorization);
    if (const Timeout most = wanted ? wanted : timeout) {
      context.set_deadline(std::chrono::system_clock::now() +
                           std::chrono::duration_cast<std::chrono::system_clock::duration>(*most));
    }
  }

  std::string authorization;
  Timeout timeout;
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<v1::GenerationService::Stub> generation = v1::GenerationService::NewStub(channel);
  std::unique_ptr<v1::ModelService::Stub> models = v1::ModelService::NewStub(channel);
};

Client::Client(const ClientOptions& options) : connection_(std::make_unique<Connection>(options)) {}
Client::Client(Client&&) noexcept = default;
Client& Client::operator=(Client&&) noexcept = default;
Client::~Client() = default;

v1::GenerateResponse Client::generate(const v1::GenerationSpec& spec, Timeout timeout) const {
  v1::GenerateRequest request;
  *request.mutable_spec() = spec;
  grpc::ClientContext context;
  connection_->prepare(context, timeout);
  v1::GenerateResponse response;
  check(connection_->generation->Generate(&context, request, &response));
  return response;
}

Stream Client::stream(const v1::GenerationSpec& spec, Timeout timeout) const {
  v1::StreamGenerateRequest request;
  *request.mutable_spec() = spec;
  auto call = std::make_unique<Stream::Call>();
  connection_->prepare(call->context, timeout);
  call->reader = connection_->generation->StreamGenerate(&call->context, request);
  return Stream(std::move(call));
}

int Client::count_tokens(const v1::GenerationSpec& spec, Timeout timeout) const {
  v1::CountTokensRequest request;
  *request.mutable_spec() = spec;
  grpc::ClientContext context;
  connection_->prepare(context, timeout);
  v1::CountTokensResponse response;
  check(connection_->generation->CountTokens(&context, request, &response));
  return response.num_tokens();
}

v1::Model Client::model(Timeout timeout) const {
  grpc::ClientContext context;
  connection_->prepare(context, timeout);
  v1::GetModelResponse response;
  check(connection_->models->GetModel(&context, v1::GetModelRequest(), &response));
  return response.model();
}

}  // namespace tandem
