// Does what the tests of all clients ask for, and prints what came of it as JSON.
#include <google/protobuf/struct.pb.h>
#include <google/protobuf/util/json_util.h>

#include <cstdlib>
#include <functional>
#include <iostream>

#include "tandem/client.h"

namespace {

using namespace std::chrono_literals;
using google::protobuf::Struct;
using tandem::v1::GenerationSpec;

std::string variable(const char* name, const char* otherwise) {
  const char* value = std::getenv(name);
  return value ? value : otherwise;
}

void put(Struct& json, const char* name, const std::string& value) {
  (*json.mutable_fields())[name].set_string_value(value);
}

void put(Struct& json, const char* name, int value) { (*json.mutable_fields())[name].set_number_value(value); }

GenerationSpec spec(int max_tokens) {
  GenerationSpec spec;
  spec.set_text("def read_lines(path):");
  spec.mutable_sampling()->set_temperature(0);
  spec.mutable_stopping()->set_max_tokens(max_tokens);
  return spec;
}

GenerationSpec long_spec() {
  GenerationSpec long_spec = spec(900);
  long_spec.mutable_stopping()->set_ignore_eos(true);
  return long_spec;
}

tandem::Error refusal(const std::function<void()>& call) {
  try {
    call();
  } catch (const tandem::Error& error) {
    return error;
  }
  throw std::logic_error("the call came through");
}

Struct stream(const tandem::Client& client) {
  Struct json;
  std::string text;
  int num_messages = 0, num_tokens = 0;
  for (const auto& event : client.stream(spec(32))) {
    if (event.has_started()) put(json, "request_id", event.started().request_id());
    text += event.delta().text();
    num_messages += !event.delta().text().empty();
    num_tokens += event.delta().num_tokens();
    if (event.has_finished()) {
      put(json, "finish_reason", tandem::v1::FinishReason_Name(event.finished().reason()));
      put(json, "num_rounds", event.finished().speculation().num_rounds());
    }
  }
  put(json, "text", text);
  put(json, "num_messages", num_messages);
  put(json, "num_tokens", num_tokens);
  return json;
}

Struct unary(const tandem::Client& client) {
  const auto response = client.generate(spec(32));
  Struct json;
  put(json, "text", response.output().text());
  put(json, "num_tokens", response.output().num_tokens());
  put(json, "finish_reason", tandem::v1::FinishReason_Name(response.finished().reason()));
  put(json, "request_id", response.started().request_id());
  return json;
}

Struct cancel(const tandem::Client& client) {
  tandem::Stream stream = client.stream(long_spec());
  int num_tokens = 0;
  while (const auto event = stream.next()) {
    num_tokens += event->delta().num_tokens();
    if (!event->delta().text().empty()) break;
  }
  stream.cancel();
  Struct json;
  put(json, "code", refusal([&] { while (stream.next()) continue; }).code_name());
  put(json, "num_tokens", num_tokens);
  return json;
}

Struct deadline(const tandem::Client& client) {
  Struct json;
  put(json, "code", refusal([&] { client.generate(long_spec(), 300ms); }).code_name());
  return json;
}

Struct bad_request(const tandem::Client& client) {
  GenerationSpec wrong = spec(32);
  wrong.mutable_sampling()->set_temperature(-1);
  const tandem::Error error = refusal([&] { client.generate(wrong); });
  Struct json;
  put(json, "code", error.code_name());
  put(json, "reason", error.reason());
  put(json, "domain", error.domain());
  put(json, "field", error.field());
  put(json, "description", error.description());
  return json;
}

Struct key(const tandem::Client& client) {
  Struct json;
  try {
    put(json, "text", client.generate(spec(4)).output().text());
  } catch (const tandem::Error& error) {
    put(json, "code", error.code_name());
    put(json, "reason", error.reason());
  }
  return json;
}

Struct run(const std::string& name, const tandem::Client& client) {
  if (name == "stream") return stream(client);
  if (name == "unary") return unary(client);
  if (name == "cancel") return cancel(client);
  if (name == "deadline") return deadline(client);
  if (name == "bad_request") return bad_request(client);
  if (name == "key") return key(client);
  throw std::invalid_argument("no case " + name);
}

}  // namespace

int main(int count, char** arguments) try {
  tandem::ClientOptions options;
  options.address = variable("TANDEM_ADDRESS", "127.0.0.1:8700");
  options.ca_file = variable("TANDEM_CA_FILE", "");
  options.api_key = variable("TANDEM_API_KEY", "");
  const tandem::Client client(options);
  std::string json;
  const auto printed = google::protobuf::util::MessageToJsonString(run(count > 1 ? arguments[1] : "", client), &json);
  if (!printed.ok()) throw std::logic_error(printed.ToString());
  std::cout << json << std::endl;
} catch (const std::exception& error) {
  std::cerr << error.what() << std::endl;
  return 1;
}
