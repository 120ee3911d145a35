package dev.tandem.client;

import dev.tandem.v1.Delta;
import dev.tandem.v1.Finished;
import dev.tandem.v1.GenerateResponse;
import dev.tandem.v1.GenerationSpec;
import dev.tandem.v1.SamplingOptions;
import dev.tandem.v1.StoppingOptions;
import dev.tandem.v1.StreamGenerateResponse;
import java.io.File;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.stream.Collectors;

/** Does what the tests of all clients ask for, and prints what came of it as JSON. */
final class Cases {
  private static final GenerationSpec SHORT = spec(32).build();
  private static final GenerationSpec LONG = longSpec();

  private Cases() {}

  public static void main(String[] arguments) {
    Map<String, String> environment = System.getenv();
    TandemClient.Builder builder = TandemClient.builder(environment.getOrDefault("TANDEM_ADDRESS", "127.0.0.1:8700"));
    if (environment.containsKey("TANDEM_CA_FILE")) {
      builder.authorities(new File(environment.get("TANDEM_CA_FILE")));
    }
    builder.apiKey(environment.get("TANDEM_API_KEY"));
    try (TandemClient client = builder.build()) {
      String json = json(run(arguments[0], client));
      new PrintStream(System.out, true, StandardCharsets.UTF_8).println(json);
    }
  }

  private static Map<String, Object> run(String name, TandemClient client) {
    switch (name) {
      case "stream":
        return stream(client);
      case "unary":
        return unary(client);
      case "cancel":
        return cancel(client);
      case "deadline":
        return Map.of("code", refused(() -> client.generate(LONG, Duration.ofMillis(300))).code().name());
      case "bad_request":
        return badRequest(client);
      case "key":
        return key(client);
      default:
        throw new IllegalArgumentException("no case " + name);
    }
  }

  private static Map<String, Object> stream(TandemClient client) {
    Map<String, Object> result = new LinkedHashMap<>();
    StringBuilder text = new StringBuilder();
    int messages = 0;
    int tokens = 0;
    try (EventStream events = client.stream(SHORT)) {
      while (events.hasNext()) {
        StreamGenerateResponse event = events.next();
        switch (event.getEventCase()) {
          case STARTED -> result.put("request_id", event.getStarted().getRequestId());
          case DELTA -> {
            Delta delta = event.getDelta();
            text.append(delta.getText());
            messages += delta.getText().isEmpty() ? 0 : 1;
            tokens += delta.getNumTokens();
          }
          case FINISHED -> {
            Finished finished = event.getFinished();
            result.put("finish_reason", finished.getReason().name());
            result.put("num_rounds", finished.getSpeculation().getNumRounds());
          }
          default -> throw new IllegalStateException("an event of no kind");
        }
      }
    }
    result.put("text", text.toString());
    result.put("num_messages", messages);
    result.put("num_tokens", tokens);
    return result;
  }

  private static Map<String, Object> unary(TandemClient client) {
    GenerateResponse response = client.generate(SHORT);
    return Map.of(
        "text", response.getOutput().getText(),
        "num_tokens", response.getOutput().getNumTokens(),
        "finish_reason", response.getFinished().getReason().name(),
        "request_id", response.getStarted().getRequestId());
  }

  private static Map<String, Object> cancel(TandemClient client) {
    int tokens = 0;
    try (EventStream events = client.stream(LONG)) {
      Delta delta;
      do {
        delta = events.next().getDelta();
        tokens += delta.getNumTokens();
      } while (delta.getText().isEmpty());
      events.cancel();
      TandemException refusal =
          refused(
              () -> {
                while (events.hasNext()) {
                  events.next();
                }
              });
      return Map.of("code", refusal.code().name(), "num_tokens", tokens);
    }
  }

  private static Map<String, Object> badRequest(TandemClient client) {
    GenerationSpec spec = spec(32).setSampling(SamplingOptions.newBuilder().setTemperature(-1)).build();
    TandemException refusal = refused(() -> client.generate(spec));
    return Map.of(
        "code", refusal.code().name(),
        "reason", refusal.reason().orElseThrow(),
        "domain", refusal.domain().orElseThrow(),
        "field", refusal.field().orElseThrow(),
        "description", refusal.description().orElseThrow());
  }

  private static Map<String, Object> key(TandemClient client) {
    try {
      return Map.of("text", client.generate(spec(4).build()).getOutput().getText());
    } catch (TandemException refusal) {
      return Map.of("code", refusal.code().name(), "reason", refusal.reason().orElseThrow());
    }
  }

  private static TandemException refused(Runnable call) {
    try {
      call.run();
    } catch (TandemException refusal) {
      return refusal;
    }
    throw new IllegalStateException("the call came through");
  }

  private static GenerationSpec.Builder spec(int maxTokens) {
    return GenerationSpec.newBuilder()
        .setText("def read_lines(path):")
        .setSampling(SamplingOptions.newBuilder().setTemperature(0))
        .setStopping(StoppingOptions.newBuilder().setMaxTokens(maxTokens));
  }

  private static GenerationSpec longSpec() {
    GenerationSpec.Builder spec = spec(900);
    spec.getStoppingBuilder().setIgnoreEos(true);
    return spec.build();
  }

  private static String json(Map<String, Object> values) {
    return values.entrySet().stream()
        .map(entry -> quoted(entry.getKey()) + ": " + json(entry.getValue()))
        .collect(Collectors.joining(", ", "{", "}"));
  }

  private static String json(Object value) {
    return value instanceof Number ? value.toString() : quoted(value.toString());
  }

  private static String quoted(String text) {
    return text.chars()
        .mapToObj(unit -> unit < ' ' || unit == '"' || unit == '\\' ? String.format("\\u%04x", unit) : "" + (char) unit)
        .collect(Collectors.joining("", "\"", "\""));
  }
}
